"""Rows of a token store in one memory-mapped file, where any of them is at hand without reading the others.

`records.arrow` is an Arrow file (IPC, uncompressed): the columns of data.store, in record batches of BATCH_ROWS rows,
with a `<stream>_durations` column for every stream. A row costs what its own bytes cost; nothing is read ahead of use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, overload

import numpy as np
import pyarrow as pa

from data.errors import InputError
from data.store import DURATIONS, LINKS, Record, StreamInfo, row_schema, streams_of

BATCH_ROWS = 16384
RECENT_RECORDS = 2048  # kept: what is planned is rendered soon after
_SCALARS = ("id", "text", "speaker", "lang", "duration_s", "caption", "kind", "split")
_EMPTY_JSON = "{}"


def write_rows(handle: Any, tables: Iterable[pa.Table], streams: Mapping[str, StreamInfo]) -> int:
    """Write the tables of all shards as one Arrow file; how many rows they have. Memory: a batch and a shard."""
    schema = row_schema(streams, streams)
    num_rows, waiting = 0, schema.empty_table()
    with pa.ipc.new_file(handle, schema) as writer:
        for table in tables:
            waiting = pa.concat_tables([waiting, _filled(table, schema)])
            num_rows += len(table)
            while len(waiting) >= BATCH_ROWS:
                _write_batch(writer, waiting.slice(0, BATCH_ROWS))
                waiting = waiting.slice(BATCH_ROWS)
        if len(waiting):
            _write_batch(writer, waiting)
    return num_rows


def _write_batch(writer: Any, table: pa.Table) -> None:
    writer.write_batch(table.combine_chunks().to_batches()[0])


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with all columns of the schema; those that the shard lacks are null."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


class Rows(Sequence[Record]):
    """The records of a file that `write_rows` made, built when asked for, with their answers linked.

    `by_id`: indices in the order of ids, by which answers are found; made where it is not given.
    """

    def __init__(self, path: str, by_id: np.ndarray | None = None) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(path))
        self.streams = streams_of(self._file.schema, path)
        self._batches: list[_Batch | None] = [None] * self._file.num_record_batches
        last = self._batch(len(self._batches) - 1).num_rows if self._batches else 0
        self._num_rows = max(0, len(self._batches) - 1) * BATCH_ROWS + last
        self._recent = lru_cache(RECENT_RECORDS)(lambda index: self._linked(index, {}))
        if by_id is not None:
            self.by_id = by_id

    def __len__(self) -> int:
        return self._num_rows

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self._recent(number) for number in range(*index.indices(len(self)))]
        if not -self._num_rows <= index < self._num_rows:
            raise IndexError(f"row {index} of {self._num_rows}")
        return self._recent(int(index) % self._num_rows)

    def __iter__(self) -> Iterator[Record]:
        return (self._linked(index, {}) for index in range(len(self)))

    def field(self, name: str, index: int) -> Any:
        """A field of a row (id, text, speaker, …), without the others."""
        batch, row = divmod(index, BATCH_ROWS)
        return self._batch(batch).view(name)[row]

    def codes(self, stream: str, index: int) -> np.ndarray | None:
        """The codes of a row, a view into the file; None where it lacks the stream."""
        batch, row = divmod(index, BATCH_ROWS)
        found: np.ndarray | None = self._batch(batch).view(stream)[row]
        return found

    def code_counts(self, stream: str) -> np.ndarray:
        """How many codes of a stream each row has, int32 (N,); 0 where it lacks the stream."""
        found = [np.diff(self._batch(number).view(stream).offsets) for number in range(len(self._batches))]
        return np.concatenate([np.zeros(0, np.int32), *found])

    def column(self, name: str) -> pa.ChunkedArray:
        """A column as Arrow has it."""
        batches = [self._file.get_batch(number).column(name) for number in range(len(self._batches))]
        return pa.chunked_array(batches, self._file.schema.field(name).type)

    @cached_property
    def by_id(self) -> np.ndarray:
        """Indices of the rows in the order of their ids (that of Python's strings), int32."""
        import pyarrow.compute as pc

        # UTF-8 sorts as its code points do.
        return np.asarray(pc.sort_indices(self.column("id"))).astype(np.int32)

    def index_of(self, name: str) -> int | None:
        """The row with an id; of several, the last. None where there is none."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.field("id", int(self.by_id[middle])) > name else (middle + 1, high)
        found = int(self.by_id[low - 1]) if low else -1
        return found if found >= 0 and self.field("id", found) == name else None

    def _batch(self, number: int) -> _Batch:
        batch = self._batches[number]
        if batch is None:
            batch = self._batches[number] = _Batch(self._file.get_batch(number), tuple(self.streams))
        return batch

    def _linked(self, index: int, made: dict[int, Record]) -> Record:
        """A record with those that it leads to; `made` holds what was made on the way, so that circles close."""
        if index in made:
            return made[index]
        batch, row = divmod(index, BATCH_ROWS)
        record = made[index] = self._batch(batch).record(row)
        for link in LINKS if record.extra else ():
            name = record.extra.get(link)  # a field of the user's own may have this name and hold anything
            answer = self.index_of(name) if isinstance(name, str) else None
            if answer is not None:
                object.__setattr__(record, link, self._linked(answer, made))
        return record


class _Batch:
    """One record batch as views of its columns, each made when first asked for."""

    def __init__(self, batch: pa.RecordBatch, streams: Sequence[str]) -> None:
        self.num_rows = batch.num_rows
        self._batch, self._streams = batch, streams
        self._views: dict[str, Any] = {}

    def view(self, name: str) -> Any:
        """Row -> value of a column."""
        found = self._views.get(name)
        if found is None:
            column = self._batch.column(name)
            found = self._views[name] = _VIEWS.get(name, _Lists).of(column)
        return found

    def record(self, row: int) -> Record:
        """A record without its answers."""
        extra = self.view("extra")[row]
        streams = ((name, self.view(name)[row]) for name in self._streams)
        durations = ((name, self.view(name + DURATIONS)[row]) for name in self._streams)
        return Record(
            **{name: self.view(name)[row] for name in _SCALARS},
            words=self.view("words")[row],
            extra={} if extra == _EMPTY_JSON else json.loads(extra or _EMPTY_JSON),
            streams={name: codes for name, codes in streams if codes is not None},
            durations={name: frames for name, frames in durations if frames is not None},
        )


def _nulls(column: pa.Array) -> np.ndarray | None:
    """Which rows are null, None where none is."""
    return np.asarray(column.is_null()) if column.null_count else None


@dataclass(frozen=True, slots=True)
class _Numbers:
    values: np.ndarray
    null: np.ndarray | None

    @classmethod
    def of(cls, column: pa.Array) -> _Numbers:
        return cls(column.to_numpy(zero_copy_only=False), _nulls(column))

    def __getitem__(self, row: int) -> float | None:
        return None if self.null is not None and self.null[row] else float(self.values[row])


@dataclass(frozen=True, slots=True)
class _Strings:
    offsets: np.ndarray
    content: Any
    null: np.ndarray | None

    @classmethod
    def of(cls, column: pa.StringArray) -> _Strings:
        _, offsets, content = column.buffers()
        bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
        return cls(bounds, memoryview(content if content is not None else b""), _nulls(column))

    def __getitem__(self, row: int) -> str | None:
        if self.null is not None and self.null[row]:
            return None
        return str(self.content[self.offsets[row] : self.offsets[row + 1]], "utf-8")

    def part(self, rows: slice) -> list[str]:
        """Neighbouring strings, decoded together; none of them null."""
        bounds = self.offsets[rows.start : rows.stop + 1].tolist()
        first = bounds[0]
        whole = str(self.content[first : bounds[-1]], "utf-8")
        if len(whole) < bounds[-1] - first:  # positions of characters are not those of bytes
            return [str(self.content[start:end], "utf-8") for start, end in pairwise(bounds)]
        return [whole[start - first : end - first] for start, end in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class _Lists:
    offsets: np.ndarray
    values: np.ndarray
    null: np.ndarray | None

    @classmethod
    def of(cls, column: pa.ListArray) -> _Lists:
        return cls(column.offsets.to_numpy(), column.values.to_numpy(), _nulls(column))

    def __getitem__(self, row: int) -> np.ndarray | None:
        if self.null is not None and self.null[row]:
            return None
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True, slots=True)
class _Words:
    offsets: np.ndarray
    words: _Strings
    starts_s: np.ndarray
    ends_s: np.ndarray
    null: np.ndarray | None

    @classmethod
    def of(cls, column: pa.ListArray) -> _Words:
        word, start_s, end_s = (column.values.field(name) for name in ("word", "start_s", "end_s"))
        return cls(column.offsets.to_numpy(), _Strings.of(word), start_s.to_numpy(), end_s.to_numpy(), _nulls(column))

    def __getitem__(self, row: int) -> tuple[tuple[str, float, float], ...] | None:
        if self.null is not None and self.null[row]:
            return None
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return tuple(zip(self.words.part(part), self.starts_s[part].tolist(), self.ends_s[part].tolist(), strict=True))


_VIEWS: dict[str, Any] = {
    **dict.fromkeys((*_SCALARS, "extra"), _Strings),
    "duration_s": _Numbers,
    "words": _Words,
}


def open_rows(path: str, by_id: np.ndarray | None = None) -> Rows:
    """`Rows`. Raises InputError where `path` is no such file."""
    try:
        return Rows(path, by_id)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} is no file of rows ({error}): delete its folder, it will be made again") from None
