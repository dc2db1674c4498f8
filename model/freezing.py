"""Which weights a phase trains."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import torch

from data.errors import InputError
from model.lm import plain_language_model

log = logging.getLogger("antiphon")


def freeze(model: Any, trainable: str | Sequence[str] | None, first_new_row: int) -> None:
    """Let only what `trainable` names train, beside adapters; see PhaseConfig.trainable.

    `first_new_row` is the id of the first embedding row that a pretrained model does not know. With `new_rows` the
    rows before it stay bit-equal: their gradient is zeroed where it enters the weight, so that clipping, momentum and
    updates never see it, and the optimizer lets such a weight not decay (`trains_rows`).
    Raises InputError when a pattern fits no weight, or nothing is left to train.
    """
    if trainable is None or trainable == "all":
        return
    chosen = _chosen(model, trainable)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in chosen or _is_adapter(name))
    if trainable == "new_rows":
        for name in chosen:
            _train_rows(dict(model.named_parameters())[name], first_new_row)
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    counted = sum(size for size, trains in sizes if trains)
    if not counted:
        raise InputError(f"trainable={trainable!r} leaves nothing to train: name other weights")
    log.info("train: %s leaves %d of %d weights to train", trainable, counted, sum(size for size, _ in sizes))


def _chosen(model: Any, trainable: str | Sequence[str]) -> set[str]:
    """Names of the weights, adapters aside."""
    names = [name for name, _ in model.named_parameters() if not _is_adapter(name)]
    if trainable == "lora":
        return set()
    if isinstance(trainable, str):
        lm = plain_language_model(model)
        tables = (lm.get_input_embeddings().weight, lm.get_output_embeddings().weight)
        return {name for name, weight in model.named_parameters() if any(weight is table for table in tables)}
    found = set()
    for pattern in trainable:
        try:
            matches = {name for name in names if re.search(pattern, name)}
        except re.error as error:
            raise InputError(f"trainable: {pattern!r} is no regular expression ({error})") from None
        if not matches:
            raise InputError(f"trainable: {pattern!r} is found in no weight's name; they are like {names[0]!r}")
        found |= matches
    return found


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _train_rows(weight: Any, first_row: int) -> None:
    if first_row >= weight.shape[0]:
        raise InputError(f"trainable: new_rows, but the model has {weight.shape[0]} rows and all are known")

    def only_new(gradient: torch.Tensor) -> torch.Tensor:
        masked = gradient.clone()
        masked[:first_row] = 0
        return masked

    weight.trains_rows = True
    weight.register_hook(only_new)
