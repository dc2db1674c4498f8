"""Planned documents -> batches. Documents of tasks with a layout are written all at once, others one by one.

Shapes: B = rows, T = tokens of a row; N = tokens of all documents of a batch, D = documents, P = pieces of these.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from data.grammar.joined import joining
from data.grammar.layout import Codes, Fixed, Layout, Written, layout_of
from data.packing import Batch, FlatDocuments, pack_flat
from data.planning import PlannedDocument
from data.rows import Rows
from data.sources import Sources

ANY_ID = np.iinfo(np.int32).max


class Columns(Protocol):
    """Fields of records by index, without the records (data.rows.Rows has it)."""

    def codes(self, stream: str, index: int) -> np.ndarray | None: ...
    def field(self, name: str, index: int) -> Any: ...


class ListedRecords:
    """Records in memory as `Columns`."""

    def __init__(self, records: Sequence[Any]) -> None:
        self._records = records

    def codes(self, stream: str, index: int) -> np.ndarray | None:
        """The codes of a record; None where it lacks the stream."""
        found: np.ndarray | None = self._records[index].streams.get(stream)
        return found

    def field(self, name: str, index: int) -> Any:
        """A field of a record."""
        return getattr(self._records[index], name)


class Renderer:
    """Renders documents of a phase's sources. `loss_weights`: task -> weight of its targets, by default 1."""

    def __init__(self, sources: Sources, loss_weights: Mapping[str, float]) -> None:
        self._sources, self._loss_weights = sources, loss_weights
        records: Any = sources.records
        columns: Columns = records if isinstance(records, Rows) else ListedRecords(records)
        self._joining = {task: found for task, grammar in sources.grammars.items() if (found := joining(grammar))}
        self._table = _PieceTable()
        self._writers = {
            task: _Writer(layout, columns, self._table)
            for task, grammar in sources.grammars.items()
            if (layout := layout_of(grammar)) is not None
        }

    def batch(self, rows: Sequence[Sequence[PlannedDocument]], num_rows: int, sequence_length: int) -> Batch:
        """The packed rows of documents, as data.packing.pack_flat has them. Raises InputError for codes that do not
        fit the vocabulary, and as `Sources.tokens`."""
        pieces = _Pieces()
        documents = [document for row in rows for document in row]
        continues = self._continues(rows)
        for document, goes_on in zip(documents, continues, strict=True):
            self._write(document, goes_on, pieces)
        ids_N, loss_mask_N, fit = self._table.joined(pieces)
        if not fit:
            for document in documents:
                self._sources.tokens(document)  # raises, and says which codes do not fit
        weights = self._loss_weights
        flat = FlatDocuments(
            ids_N,
            loss_mask_N,
            np.array([document.num_tokens for document in documents], dtype=np.int64),
            np.array([weights.get(document.source, 1.0) for document in documents], dtype=np.float32),
            [document.source for document in documents],
            np.array(continues, dtype=bool),
        )
        return pack_flat(flat, [len(row) for row in rows], num_rows, sequence_length, self._sources.pad_id)

    def _continues(self, rows: Sequence[Sequence[PlannedDocument]]) -> list[bool]:
        """Of each document, whether it is joined to the one before it."""
        if not self._joining:
            return [False] * sum(map(len, rows))
        pairs = (zip((None, *row), row, strict=False) for row in rows)
        return [
            before is not None and document.source in self._joining and document.source == before.source
            for before, document in itertools.chain.from_iterable(pairs)
        ]

    def _write(self, document: PlannedDocument, continues: bool, pieces: _Pieces) -> None:
        writer = self._writers.get(document.source)
        whole = document.span is None and not document.start
        if writer is not None and whole and writer.write(document.record, document.num_tokens, pieces):
            return
        ids, mask = self._sources.tokens(document)
        if continues:
            mask = mask.copy()
            mask[0] = self._joining[document.source].trains_openings
        pieces.masks[len(pieces.values)] = mask
        pieces.values.append(ids)
        pieces.kinds.append(_PieceTable.RENDERED)


class _Pieces:
    """Pieces of a batch in their order: values (ids, or codes to be shifted), and of which kind each is; the masks of
    those that hold whole documents, by place."""

    def __init__(self) -> None:
        self.values: list[np.ndarray] = []
        self.kinds: list[int] = []
        self.masks: dict[int, np.ndarray] = {}


class _PieceTable:
    """What is done to pieces of each kind: shifted by `starts`, after a check that they are below `limits`."""

    RENDERED = 0

    def __init__(self) -> None:
        self._starts, self._limits, self._targets = [0], [ANY_ID], [True]

    def add(self, start: int, limit: int, target: bool) -> int:
        """The number of a new kind."""
        self._starts.append(start)
        self._limits.append(limit)
        self._targets.append(target)
        return len(self._starts) - 1

    def joined(self, pieces: _Pieces) -> tuple[np.ndarray, np.ndarray, bool]:
        """ids_N int64 and loss_mask_N of all pieces, and whether all codes are below their limits."""
        lengths_P = np.fromiter(map(len, pieces.values), dtype=np.int64, count=len(pieces.values))
        kinds_N = np.repeat(np.array(pieces.kinds, dtype=np.int64), lengths_P)
        ids_N = np.concatenate([np.zeros(0, dtype=np.int64), *pieces.values])
        fit = not ((ids_N < 0) | (ids_N >= np.array(self._limits)[kinds_N])).any()
        ids_N += np.array(self._starts)[kinds_N]
        mask_N = np.array(self._targets)[kinds_N]
        ends_P = np.cumsum(lengths_P)
        for place, mask in pieces.masks.items():
            mask_N[ends_P[place] - len(mask) : ends_P[place]] = mask
        return ids_N, mask_N, fit


class _Writer:
    """Appends the pieces of one task's documents."""

    def __init__(self, layout: Layout, columns: Columns, table: _PieceTable) -> None:
        self._kinds = [_kind(piece, table) for piece in layout]
        self._values: list[Any] = [piece.ids if isinstance(piece, Fixed) else None for piece in layout]
        self._open = [
            (place, _getter(piece, columns)) for place, piece in enumerate(layout) if not isinstance(piece, Fixed)
        ]
        self._num_fixed = sum(len(piece.ids) for piece in layout if isinstance(piece, Fixed))

    def write(self, index: int, num_tokens: int, pieces: _Pieces) -> bool:
        """Whether a record's document was appended. Not where something is missing, or where it is not `num_tokens`
        long: then it is rendered by itself, which has an answer to that."""
        values, length = self._values.copy(), self._num_fixed
        for place, get in self._open:
            value = get(index)
            if value is None or not len(value):
                return False
            values[place] = value
            length += len(value)
        if length != num_tokens:
            return False
        pieces.values += values
        pieces.kinds += self._kinds
        return True


def _kind(piece: Fixed | Codes | Written, table: _PieceTable) -> int:
    if isinstance(piece, Codes) and piece.encode is None:
        return table.add(piece.start, piece.size, piece.target)
    return table.add(0, ANY_ID, piece.target)


def _getter(piece: Codes | Written, columns: Columns) -> Callable[[int], np.ndarray | None]:
    """Index -> what stands there, None where the record has nothing."""
    if isinstance(piece, Written):
        name, write = piece.field, piece.encode
        return lambda index: None if (value := columns.field(name, index)) is None else write(value)
    stream, encode = piece.stream, piece.encode
    if encode is None:
        return lambda index: columns.codes(stream, index)
    return lambda index: None if (codes := columns.codes(stream, index)) is None else encode(codes)
