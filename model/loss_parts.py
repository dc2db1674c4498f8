"""The loss by source (task) and by modality (vocabulary block): sums on the device, means once a step.

Shapes: B rows, T positions, N targets, K parts (sources, then modalities).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.vocabulary import Vocabulary


@dataclass(frozen=True)
class LossParts:
    """Names of the parts. `block_starts` are the first ids of the vocabulary's blocks after the first, ascending;
    `block_modality` says for each block which modality it counts to."""

    sources: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    block_starts: tuple[int, ...] = ()
    block_modality: tuple[int, ...] = ()

    @classmethod
    def of(cls, sources: Sequence[str], vocabulary: Vocabulary) -> LossParts:
        """Parts for these sources; codebooks of one stream ("unit.0", "unit.1") are one modality."""
        blocks = sorted(vocabulary.blocks, key=lambda block: block.start)
        names = [block.name.split(".")[0] for block in blocks]
        modalities = tuple(dict.fromkeys(names))
        return cls(
            tuple(sources),
            modalities,
            tuple(block.start for block in blocks[1:]),
            tuple(modalities.index(name) for name in names),
        )

    def __len__(self) -> int:
        return len(self.sources) + len(self.modalities)

    def sums(
        self, losses_N: torch.Tensor, weights_N: torch.Tensor, labels_N: torch.Tensor, sources_N: torch.Tensor | None
    ) -> torch.Tensor:
        """(K, 2) float64: of each part the weighted cross entropy and the weight of its targets."""
        values_N2 = torch.stack([losses_N * weights_N, weights_N], dim=1).double()
        sums_K2 = values_N2.new_zeros(len(self), 2)
        if self.sources and sources_N is not None:
            sums_K2.index_add_(0, sources_N, values_N2)
        if self.modalities:
            starts = torch.tensor(self.block_starts, device=labels_N.device, dtype=labels_N.dtype)
            modality = torch.tensor(self.block_modality, device=labels_N.device)
            block_N = torch.bucketize(labels_N, starts, right=True)
            sums_K2.index_add_(0, len(self.sources) + modality[block_N], values_N2)
        return sums_K2

    def means(self, sums_K2: torch.Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """Loss per unit of target weight by source and by modality; parts without a target are left out."""
        named = zip((*self.sources, *self.modalities), sums_K2.tolist(), strict=True)
        means = [(name, loss / weight) if weight else None for name, (loss, weight) in named]
        split = len(self.sources)
        return dict(filter(None, means[:split])), dict(filter(None, means[split:]))


def source_ids(position_ids_BT: np.ndarray, documents: Sequence[Sequence[str]], sources: Sequence[str]) -> np.ndarray:
    """int64 (B, T): the index in `sources` of each token's source, given the sources of each row's documents in order.

    A row's padding, which is laid out as one more document, and empty rows count as source 0: they hold no target.
    """
    index = {name: number for number, name in enumerate(sources)}
    ids_BT = np.zeros(position_ids_BT.shape, dtype=np.int64)
    for row, names in enumerate(documents):
        starts_T = position_ids_BT[row] == 0
        starts_T[0] = True
        numbers = np.array([*(index[name] for name in names), 0], dtype=np.int64)
        ids_BT[row] = numbers[np.minimum(np.cumsum(starts_T) - 1, len(names))]
    return ids_BT
