"""New ids for a pretrained model: rows for them in its embeddings, and every row it was trained with left as it is.

Shapes: V = rows, D = width, N = new rows.
"""

from collections.abc import Callable
from typing import Any

import torch

from data.vocabulary import Vocabulary
from model.config import NewRows


def extend_embeddings(model: Any, vocabulary: Vocabulary, known_ids: int, rule: NewRows, seed: int) -> None:
    """Give every id of the vocabulary a row; ids from `known_ids` on are new, and their rows are drawn by `rule`.

    Rows that the model has to spare are used first; what lacks is added, up to `vocabulary.padded_size`. Input and
    output embeddings are drawn apart unless they are tied. The draws depend on `seed` alone.
    """
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    before = inputs.num_embeddings
    known_ids = min(known_ids, before)  # a tokenizer may have ids that its model never had rows for
    if before < vocabulary.padded_size:
        # The rows that this adds are drawn again below: transformers draws from the global generator.
        with torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(vocabulary.padded_size, mean_resizing=False)
        inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    after = inputs.num_embeddings
    # Spare rows beyond the vocabulary stay untouched where they were there before, and are drawn where they are added.
    new = [*range(known_ids, min(vocabulary.size, before)), *range(max(known_ids, before), after)]
    generator = torch.Generator().manual_seed(seed)
    config = model.config.get_text_config()
    spread = getattr(config, "initializer_range", getattr(config, "init_std", 0.02))  # the second is OPT's name
    tied = outputs is None or outputs.weight is inputs.weight
    for weight_VD in [inputs.weight] if tied else [inputs.weight, outputs.weight]:
        if new:
            with torch.no_grad():
                rows_ND = RULES[rule](weight_VD[:known_ids].double(), len(new), spread, generator)
                weight_VD[new] = rows_ND.to(weight_VD.dtype)
    model.config.pad_token_id = vocabulary.pad_id
    model.config.eos_token_id = vocabulary.eos_id


def _mean(known_VD: torch.Tensor, count: int, spread: float, generator: torch.Generator) -> torch.Tensor:
    """All new rows at the mean of the known ones."""
    return known_VD.mean(dim=0).expand(count, -1)


def _mean_covariance(known_VD: torch.Tensor, count: int, spread: float, generator: torch.Generator) -> torch.Tensor:
    """Draws from the normal distribution of the known rows (Hewitt 2021, "Initializing new word embeddings")."""
    mean_D = known_VD.mean(dim=0)
    centred_VD = known_VD - mean_D
    values_D, vectors_DD = torch.linalg.eigh(centred_VD.T @ centred_VD / len(known_VD))
    draws_ND = torch.randn(count, len(mean_D), dtype=known_VD.dtype, generator=generator)
    return mean_D + (draws_ND * values_D.clamp_min(0).sqrt()) @ vectors_DD.T


def _random(known_VD: torch.Tensor, count: int, spread: float, generator: torch.Generator) -> torch.Tensor:
    """Draws around zero, as wide as the model's own initialisation."""
    return spread * torch.randn(count, known_VD.shape[1], dtype=known_VD.dtype, generator=generator)


RULES: dict[NewRows, Callable[[torch.Tensor, int, float, torch.Generator], torch.Tensor]] = {
    "mean": _mean,
    "mean_covariance": _mean_covariance,
    "random": _random,
}
