"""Rows of a token store in one file, where any of them is at hand without reading the others.

`records.arrow` is an Arrow file (IPC, uncompressed): the columns of data.store, in record batches of BATCH_ROWS rows,
with a `<stream>_durations` column for every stream. A row costs what its own bytes cost: it is read from its place in
the file. Kept in memory are, for every column in use, where its rows begin.
"""

from __future__ import annotations

import json
import mmap
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, overload

import numpy as np
import pyarrow as pa

from data.errors import InputError
from data.store import DURATIONS, LINKS, Record, StreamInfo, read_table, row_schema, streams_of

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
    """The records of a file that `write_rows` made, built when asked for, with their answers linked. Threads may share
    it.

    `by_id`: indices in the order of ids, by which answers are found; made where it is not given. Raises InputError
    where `path` is no such file.
    """

    def __init__(self, path: str, by_id: np.ndarray | None = None) -> None:
        try:
            self._content = _Content(path)
            self._file = pa.ipc.open_file(self._content.buffer)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no file of rows ({error}): delete its folder, it is made again") from None
        self.streams = streams_of(self._file.schema, path)
        self._batches: list[_Batch | None] = [None] * self._file.num_record_batches
        last = self._batch(len(self._batches) - 1).num_rows if self._batches else 0
        self._num_rows = max(0, len(self._batches) - 1) * BATCH_ROWS + last
        self._recent = lru_cache(RECENT_RECORDS)(self._linked)
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
        for number in range(len(self._batches)):
            batch = pa.Table.from_batches([self._file.get_batch(number)])
            for record in read_table(batch, self.streams):
                yield self._with_links(record, {})
            self._content.release()

    def field(self, name: str, index: int) -> Any:
        """A field of a row (id, text, speaker, …), without the others."""
        batch, row = divmod(index, BATCH_ROWS)
        return self._batch(batch).view(name)[row]

    def codes(self, stream: str, index: int) -> np.ndarray | None:
        """The codes of a row; None where it lacks the stream."""
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

    def in_split(self, name: str) -> np.ndarray:
        """Which rows are of a split, bool (N,)."""
        import pyarrow.compute as pc

        found = np.asarray(pc.equal(self.column("split"), name).to_numpy(), dtype=bool)
        self._content.release()
        return found

    def of_split(self, name: str) -> Chosen:
        """The records of a split, built when asked for."""
        return Chosen(self, np.flatnonzero(self.in_split(name)))

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
            batch = self._batches[number] = _Batch(self._file.get_batch(number), tuple(self.streams), self._content)
        return batch

    def _alone(self, index: int) -> Record:
        batch, row = divmod(index, BATCH_ROWS)
        return self._batch(batch).record(row)

    def _linked(self, index: int) -> Record:
        record = self._alone(index)
        return self._with_links(record, {index: record})

    def _with_links(self, record: Record, made: dict[int, Record]) -> Record:
        """The record with those that it leads to, however far; `made` holds those met on the way, so circles close."""
        waiting = [record]
        while waiting:
            current = waiting.pop()
            for link in LINKS if current.extra else ():
                name = current.extra.get(link)  # a field of the user's own may have this name and hold anything
                answer = self.index_of(name) if isinstance(name, str) else None
                if answer is None:
                    continue
                if answer not in made:
                    made[answer] = self._alone(answer)
                    waiting.append(made[answer])
                object.__setattr__(current, link, made[answer])
        return record


class Chosen(Sequence[Record]):
    """Some of the rows, by their indices in order."""

    def __init__(self, rows: Rows, indices: np.ndarray) -> None:
        self._rows, self._indices = rows, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self._rows[int(row)] for row in self._indices[index]]
        return self._rows[int(self._indices[index])]


class _Content:
    """The file's bytes. Pieces of a row are read by position, not through the mapping: a page fault brings in up to
    2 MB of neighbours, which would all count as this process's memory."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._memory = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        self.buffer = pa.py_buffer(self._memory)

    def place(self, part: pa.Buffer | None) -> int:
        """Where a buffer of a column stands in the file."""
        return int(part.address - self.buffer.address) if part is not None and part.size else 0

    def read(self, place: int, num_bytes: int) -> bytes:
        """Bytes from a place on."""
        return os.pread(self._descriptor, num_bytes, place)

    def release(self) -> None:
        """Give back the pages that were read through the mapping."""
        self._memory.madvise(mmap.MADV_DONTNEED)


class _Batch:
    """One record batch as views of its columns, each made when first asked for."""

    def __init__(self, batch: pa.RecordBatch, streams: Sequence[str], content: _Content) -> None:
        self.num_rows = batch.num_rows
        self._batch, self._streams, self._content = batch, streams, content
        self._views: dict[str, Any] = {}

    def view(self, name: str) -> Any:
        """Row -> value of a column."""
        found = self._views.get(name)
        if found is None:
            found = _VIEWS.get(name, _Lists)(self._batch.column(name), self._content)
            self._views[name] = found
            self._content.release()
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


class _View:
    """A column: which rows are null (None where none is) and, of lists and strings, where each begins: copies."""

    def __init__(self, column: pa.Array, content: _Content) -> None:
        self._content = content
        self._null = np.asarray(column.is_null()) if column.null_count else None

    def is_null(self, row: int) -> bool:
        """Whether a row has no value."""
        return self._null is not None and bool(self._null[row])


class _Numbers(_View):
    def __init__(self, column: pa.Array, content: _Content) -> None:
        super().__init__(column, content)
        self._place = content.place(column.buffers()[1])

    def __getitem__(self, row: int) -> float | None:
        return None if self.is_null(row) else float(self.part(row, row + 1)[0])

    def part(self, start: int, end: int) -> list[float]:
        """Neighbouring numbers."""
        return np.frombuffer(self._content.read(self._place + 8 * start, 8 * (end - start)), np.float64).tolist()


class _Strings(_View):
    def __init__(self, column: pa.StringArray, content: _Content) -> None:
        super().__init__(column, content)
        _, offsets, characters = column.buffers()
        self._offsets = np.frombuffer(offsets, np.int32)[: len(column) + 1].copy()
        self._place = content.place(characters)

    def __getitem__(self, row: int) -> str | None:
        if self.is_null(row):
            return None
        start, end = self._offsets.item(row), self._offsets.item(row + 1)
        return str(self._content.read(self._place + start, end - start), "utf-8")

    def part(self, start: int, end: int) -> list[str]:
        """Neighbouring strings, read together; none of them null."""
        bounds = self._offsets[start : end + 1].tolist()
        first = bounds[0]
        read = self._content.read(self._place + first, bounds[-1] - first)
        whole = str(read, "utf-8")
        if len(whole) < len(read):  # positions of characters are not those of bytes
            return [str(read[left - first : right - first], "utf-8") for left, right in pairwise(bounds)]
        return [whole[left - first : right - first] for left, right in pairwise(bounds)]


class _Lists(_View):
    def __init__(self, column: pa.ListArray, content: _Content) -> None:
        super().__init__(column, content)
        self.offsets = column.offsets.to_numpy().copy()
        self._place = content.place(column.values.buffers()[1])

    def __getitem__(self, row: int) -> np.ndarray | None:
        if self._null is not None and self._null[row]:
            return None
        start, end = self.offsets.item(row), self.offsets.item(row + 1)
        return np.frombuffer(self._content.read(self._place + 2 * start, 2 * (end - start)), np.int16)


class _Words(_View):
    def __init__(self, column: pa.ListArray, content: _Content) -> None:
        super().__init__(column, content)
        self._offsets = column.offsets.to_numpy().copy()
        word, start_s, end_s = (column.values.field(name) for name in ("word", "start_s", "end_s"))
        self._words = _Strings(word, content)
        self._times = _Numbers(start_s, content), _Numbers(end_s, content)

    def __getitem__(self, row: int) -> tuple[tuple[str, float, float], ...] | None:
        if self.is_null(row):
            return None
        part = self._offsets.item(row), self._offsets.item(row + 1)
        starts_s, ends_s = (times.part(*part) for times in self._times)
        return tuple(zip(self._words.part(*part), starts_s, ends_s, strict=True))


_VIEWS: dict[str, Any] = {
    **dict.fromkeys((*_SCALARS, "extra"), _Strings),
    "duration_s": _Numbers,
    "words": _Words,
}
