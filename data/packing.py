"""Packing of documents into rows of one length, from their lengths alone, and the arrays of packed rows.

Those of one row are isolated by position_ids that restart at 0: given neither an attention
mask nor a cache, attention then stays inside each document. Padding is a document of its own.

Shapes: B = rows, T = tokens of a row.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")
IGNORED = -100  # the label that cross-entropy skips


class BestFitPacker(Generic[Item]):
    """A planning window of documents, packed row by row.

    Each row takes the documents that have waited longest until the next one does not fit, then again and again the
    longest one that still fits. Nothing starves: every row begins with the oldest.
    """

    def __init__(self, sequence_length: int) -> None:
        self._sequence_length = sequence_length
        self._waiting: OrderedDict[int, tuple[int, Item]] = OrderedDict()
        self._by_length: list[tuple[int, int]] = []
        self._added = 0
        self.pending_tokens = 0

    def add(self, num_tokens: int, item: Item) -> None:
        """Put a document into the window. Raises ValueError for one that fits no row."""
        if not 0 < num_tokens <= self._sequence_length:
            raise ValueError(f"a document of {num_tokens} tokens fits no row of {self._sequence_length}")
        self._waiting[self._added] = (num_tokens, item)
        insort(self._by_length, (num_tokens, -self._added))  # of equal lengths, bisection finds the oldest
        self._added += 1
        self.pending_tokens += num_tokens

    @property
    def waiting(self) -> list[Item]:
        """The documents of the window, oldest first."""
        return [item for _, item in self._waiting.values()]

    def next_row(self) -> list[Item]:
        """The documents of the next row; empty when the window is."""
        row: list[Item] = []
        room = self._sequence_length
        while self._waiting:
            oldest, (num_tokens, _) = next(iter(self._waiting.items()))
            if num_tokens > room:
                break
            row.append(self._take(num_tokens, oldest))
            room -= num_tokens
        while (index := bisect_right(self._by_length, (room, 0))) > 0:
            num_tokens, negative = self._by_length[index - 1]
            row.append(self._take(num_tokens, -negative))
            room -= num_tokens
        return row

    def _take(self, num_tokens: int, number: int) -> Item:
        del self._by_length[bisect_right(self._by_length, (num_tokens, -number)) - 1]
        self.pending_tokens -= num_tokens
        return self._waiting.pop(number)[1]


@dataclass(frozen=True, slots=True)
class PackedDocument:
    """A rendered document: ids_T, loss_mask_T (True at targets), the weight of its targets, and its task."""

    ids: np.ndarray
    loss_mask: np.ndarray
    loss_weight: float
    source: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows as arrays.

    ids_BT int64; labels_BT int64, equal to ids_BT at targets and -100 elsewhere (not shifted: the train step shifts);
    position_ids_BT int64, from 0 in every document; weights_BT float32, the loss weight of each target, 0 elsewhere;
    sources: the tasks of each row's documents, in order.
    """

    ids_BT: np.ndarray
    labels_BT: np.ndarray
    position_ids_BT: np.ndarray
    weights_BT: np.ndarray
    sources: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class FlatDocuments:
    """Documents of several rows, one after the other: D documents, N tokens.

    ids_N; loss_mask_N (True at targets); num_tokens, loss_weights and sources of each document (D,); `continues` (D,):
    whether it goes on with the document before it as a part of that one, never True for the first of a row.
    """

    ids: np.ndarray
    loss_mask: np.ndarray
    num_tokens: np.ndarray
    loss_weights: np.ndarray
    sources: Sequence[str]
    continues: np.ndarray


def pack_batch(rows: Sequence[Sequence[PackedDocument]], num_rows: int, sequence_length: int, pad_id: int) -> Batch:
    """Rows of documents -> arrays, as `pack_flat`."""
    documents = [document for row in rows for document in row]
    flat = FlatDocuments(
        np.concatenate([np.zeros(0, dtype=np.int64), *(document.ids for document in documents)]),
        np.concatenate([np.zeros(0, dtype=bool), *(document.loss_mask for document in documents)]),
        np.array([len(document.ids) for document in documents], dtype=np.int64),
        np.array([document.loss_weight for document in documents], dtype=np.float32),
        [document.source for document in documents],
        np.zeros(len(documents), dtype=bool),
    )
    return pack_flat(flat, [len(row) for row in rows], num_rows, sequence_length, pad_id)


def pack_flat(
    flat: FlatDocuments, documents_of_row: Sequence[int], num_rows: int, sequence_length: int, pad_id: int
) -> Batch:
    """Documents -> arrays of `num_rows` rows; rows past the last are empty: all padding, no target.

    The first token of a document is never a target: no token before it could predict it, once labels are shifted.
    Raises ValueError for a row with more tokens than fit.
    """
    ends = np.cumsum(flat.num_tokens)
    opens = ~flat.continues
    starts = (ends - flat.num_tokens)[opens]  # of documents with all that continues them
    targets_N = flat.loss_mask.copy()
    targets_N[starts] = False
    weights_N = np.repeat(flat.loss_weights, flat.num_tokens)
    labels_N = np.where(targets_N, flat.ids, IGNORED)
    position_ids_N = np.arange(len(flat.ids)) - np.repeat(starts[np.cumsum(opens) - 1], flat.num_tokens)
    weights_N[~targets_N] = 0
    ids_BT = np.full((num_rows, sequence_length), pad_id, dtype=np.int64)
    labels_BT = np.full((num_rows, sequence_length), IGNORED, dtype=np.int64)
    position_ids_BT = np.tile(np.arange(sequence_length), (num_rows, 1))
    weights_BT = np.zeros((num_rows, sequence_length), dtype=np.float32)
    sources: list[tuple[str, ...]] = []
    document = start = 0
    for index, count in enumerate(documents_of_row):
        sources.append(tuple(itertools.compress(flat.sources[document : document + count], opens[document:])))
        document += count
        end = int(ends[document - 1]) if count else start
        length = end - start
        ids_BT[index, :length] = flat.ids[start:end]
        labels_BT[index, :length] = labels_N[start:end]
        weights_BT[index, :length] = weights_N[start:end]
        position_ids_BT[index, :length] = position_ids_N[start:end]
        position_ids_BT[index, length:] = np.arange(sequence_length - length)
        start = end
    return Batch(ids_BT, labels_BT, position_ids_BT, weights_BT, (*sources, *[()] * (num_rows - len(sources))))


def rows_per_rank(global_rows: int, micro_rows: int, world_size: int) -> int:
    """Rows that every rank computes: ceil(G / (m W)) m, so that all take the same number of micro steps."""
    return -(-global_rows // (micro_rows * world_size)) * micro_rows
