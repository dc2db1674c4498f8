"""Layers that see a bounded stretch of their input, computed piece by piece: the whole's result in bounded memory.

Shapes: B = batch, C = channels, N = input steps (samples, or frames of a lower layer), T = output steps.

Each piece is computed with as much input to either side as an output step can see, and what the sides yield is thrown
away; so the pieces joined differ from the whole in rounding alone. Pieces start at multiples of the stride and of a
fixed length, which makes the result a fixed function of the input.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn


def reach_of(layers: Iterable[nn.Module]) -> int:
    """How many input steps to either side an output step can see, at most, through the convolutions of `layers`.

    They are taken as one chain in the order of registration; a parallel shortcut only makes the bound looser.
    """
    reach, stride = 0, 1
    for layer in layers:
        for module in layer.modules():
            if isinstance(module, nn.Conv1d):
                reach += (module.kernel_size[0] - 1) * module.dilation[0] * stride
                stride *= module.stride[0]
    return reach


def in_pieces(
    compute: Callable[[torch.Tensor], torch.Tensor], steps_BCN: torch.Tensor, stride: int, reach: int, piece: int
) -> torch.Tensor:
    """compute(steps) (B, C, T), where T is N / stride rounded up and an output step sees `reach` input steps around it.

    `piece` input steps (rounded up to the stride) are computed at a time, with `reach` to either side.
    """
    piece, reach = _multiple(piece, stride), _multiple(reach, stride)
    length = steps_BCN.shape[-1]
    if length <= piece + reach:
        return compute(steps_BCN)
    parts = []
    for start in range(0, length, piece):
        left, end = max(0, start - reach), start + piece
        part_BCT = compute(steps_BCN[..., left : end + reach])
        parts.append(part_BCT[..., (start - left) // stride :][..., : piece // stride])
    return torch.cat(parts, dim=-1)


def _multiple(steps: int, stride: int) -> int:
    return -(-steps // stride) * stride
