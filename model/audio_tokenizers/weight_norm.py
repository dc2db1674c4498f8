"""Weights published as length and direction (Salimans and Kingma 2016), made whole again."""

from collections.abc import Mapping

import torch

# length, direction: the names before torch 2.0, and since
_WEIGHT_NORM = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


def fold_weight_norm(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict whose weights stand for themselves: length g and direction v become one (Salimans, Kingma 2016).

    Of the names before and since torch 2.0 alike; g has one length for each row of v.
    """
    folded = dict(state)
    for name in state:
        for length, direction in _WEIGHT_NORM:
            prefix = name.removesuffix(length)
            if prefix != name and prefix + direction in state:
                g, v = folded.pop(name), folded.pop(prefix + direction)
                norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))
                folded[f"{prefix}weight"] = v * (g / norm)
    return folded
