"""LoRA adapters as a PEFT folder beside the merged model, checked against the model that they were taken from.

Shapes: T = tokens.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from data import storage
from model.lm import load_language_model

ADAPTER = "adapter"
PROBE_TOKENS = 16


def export_adapter(folder: str, lm: Any, base: str) -> None:
    """Write the adapters of `lm` (not merged yet) into `folder`, and check that over `base`, the model folder that
    they were trained on, they give the same logits.

    Raises RuntimeError when the reloaded model differs.
    """
    lm = lm.eval()
    lm.peft_config[lm.active_adapter].base_model_name_or_path = base
    with tempfile.TemporaryDirectory() as scratch:
        # Told, PEFT asks no hub whether the vocabulary grew: the base has all rows.
        lm.save_pretrained(scratch, safe_serialization=True, save_embedding_layers=False)
        _check_equal(scratch, lm, base)
        storage.delete(folder)
        for path in sorted(Path(scratch).iterdir()):
            storage.write_bytes(storage.join(folder, path.name), path.read_bytes())


def _check_equal(adapter: str, lm: Any, base: str) -> None:
    from peft import PeftModel

    read = PeftModel.from_pretrained(load_language_model(base), adapter).eval()
    rows = lm.get_base_model().get_input_embeddings().weight.shape[0]
    ids_1T = torch.arange(PROBE_TOKENS)[None] * 7919 % rows
    with torch.no_grad():
        kept, found = (model(input_ids=ids_1T, use_cache=False).logits for model in (lm, read))
    if not torch.equal(kept, found):
        raise RuntimeError(
            f"the adapters over {base} give logits that differ by up to {(kept - found).abs().max().item():g}"
        )
