"""The token store: Parquet shards, one row per utterance, independent of any language model.

Schema of a shard:

    id, kind, split               string
    text, speaker, lang, caption  string, nullable
    duration_s                    double: seconds of the decoded audio
    words                         list<struct<word: string, start_s: double, end_s: double>>, nullable
    extra                         string: JSON object of the manifest's other fields
    <stream>                      list<int16>, frame-major when there are several codebooks; null where the stream
                                  does not apply (music has no unit, speech no music)
    <stream>_durations            list<int16> of frames per code, only where codes are deduplicated

The schema metadata key b"antiphon" holds JSON {"streams": {name: {frame_rate_hz, num_codebooks, codebook_size,
tokenizer_id}}}.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import storage
from data.errors import InputError

LINKS = ("response", "rejected")  # records that a record leads to
METADATA_KEY = b"antiphon"
DURATIONS = "_durations"
SHARDS = "shards"
ROW_GROUP_ROWS = 512
_WORD = pa.struct([("word", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())])
_FIELDS = {
    "id": pa.string(),
    "text": pa.string(),
    "speaker": pa.string(),
    "lang": pa.string(),
    "duration_s": pa.float64(),
    "caption": pa.string(),
    "kind": pa.string(),
    "split": pa.string(),
    "words": pa.list_(_WORD),
    "extra": pa.string(),
}


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the codes of one stream are: how many a second, of how many codebooks, of which tokenizer."""

    frame_rate_hz: float
    num_codebooks: int
    codebook_size: int
    tokenizer_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """One utterance as streams. A stream that does not apply is absent from `streams`.

    streams[name] are int16 codes (T*K,), frame-major; durations[name] frames per code, for deduplicated streams.
    `response` and `rejected` are the records that these keys of `extra` name, linked by TokenStore.
    """

    id: str
    text: str | None = None
    speaker: str | None = None
    lang: str | None = None
    duration_s: float = 0.0
    caption: str | None = None
    kind: str = "speech"
    split: str = "train"
    words: tuple[tuple[str, float, float], ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, np.ndarray] = field(default_factory=dict)
    durations: dict[str, np.ndarray] = field(default_factory=dict)
    response: "Record | None" = field(default=None, compare=False, repr=False)
    rejected: "Record | None" = field(default=None, compare=False, repr=False)


class TokenStore:
    """All records of a folder of shards, in shard order, with responses linked: a list in memory, or rows at hand
    (data.rows)."""

    def __init__(self, records: Sequence[Record], streams: dict[str, StreamInfo]) -> None:
        self.records = records
        self.streams = streams
        if isinstance(records, list):
            _link_responses(records)

    def __len__(self) -> int:
        return len(self.records)

    def split(self, name: str) -> Sequence[Record]:
        """The records of a split."""
        if isinstance(self.records, list):
            return [record for record in self.records if record.split == name]
        chosen: Sequence[Record] = self.records.of_split(name)  # type: ignore[attr-defined]
        return chosen

    @classmethod
    def open(cls, folder: str) -> "TokenStore":
        """Read `folder`/shards/*.parquet (or `folder`/*.parquet).

        Raises InputError where there is no shard, or where two shards disagree about the streams.
        """
        records: list[Record] = []
        streams: dict[str, StreamInfo] = {}
        for streams, table in read_shards(folder):
            records += read_table(table, streams)
        return cls(records, streams)


def shard_paths(folder: str) -> list[str]:
    """The shards of a store, in their order. Raises InputError where there is none."""
    root = storage.join(folder, SHARDS) if storage.exists(storage.join(folder, SHARDS)) else str(folder)
    names = [name for name in storage.list_files(root) if name.endswith(".parquet")]
    if not names:
        raise InputError(f"{folder!r} holds no Parquet shard: give a folder that tokenize_speech has written")
    return [storage.join(root, name) for name in names]


def read_shards(folder: str) -> Iterator[tuple[dict[str, StreamInfo], pa.Table]]:
    """The streams and the rows of every shard. Raises InputError as TokenStore.open does."""
    streams: dict[str, StreamInfo] | None = None
    for path in shard_paths(folder):
        table = pq.read_table(pa.BufferReader(storage.read_bytes(path)))
        found = streams_of(table.schema, path)
        if streams is not None and found != streams:
            raise InputError(
                f"{path} holds streams {found}, the shards before it {streams}: "
                "tokenize all of them with the same tokenizers"
            )
        streams = found
        yield streams, table


def write_shard(path: str, rows: Iterable[Record], streams_meta: Mapping[str, StreamInfo]) -> None:
    """Write one whole shard. The same rows give the same bytes. Raises ValueError for a stream without metadata.

    Row groups are bounded, for the sake of memory here and with every reader.
    """
    records = list(rows)
    unknown = {name for record in records for name in record.streams} - set(streams_meta)
    if unknown:
        raise ValueError(f"streams {sorted(unknown)} have no metadata: known are {sorted(streams_meta)}")
    deduplicated = {name for record in records for name in record.durations}
    first = _table(records[:ROW_GROUP_ROWS], streams_meta, deduplicated)
    with storage.writing(path) as handle, pq.ParquetWriter(handle, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for start in range(ROW_GROUP_ROWS, len(records), ROW_GROUP_ROWS):
            writer.write_table(_table(records[start : start + ROW_GROUP_ROWS], streams_meta, deduplicated))


def _table(rows: Sequence[Record], streams_meta: Mapping[str, StreamInfo], deduplicated: Set[str]) -> pa.Table:
    columns = {name: pa.array(_column(rows, name), kind) for name, kind in _FIELDS.items()}
    for name in sorted(streams_meta):
        columns[name] = _codes_column([row.streams.get(name) for row in rows])
        if name in deduplicated:
            columns[name + DURATIONS] = _codes_column([row.durations.get(name) for row in rows])
    return pa.table(columns).replace_schema_metadata(_metadata(streams_meta))


def _metadata(streams: Mapping[str, StreamInfo]) -> dict[bytes, bytes]:
    meta = {"streams": {name: asdict(streams[name]) for name in sorted(streams)}}
    return {METADATA_KEY: json.dumps(meta).encode()}


def row_schema(streams: Mapping[str, StreamInfo], deduplicated: Iterable[str]) -> pa.Schema:
    """The columns of rows with these streams."""
    columns: dict[str, pa.DataType] = dict(_FIELDS)
    for name in sorted(streams):
        columns[name] = pa.list_(pa.int16())
        if name in deduplicated:
            columns[name + DURATIONS] = pa.list_(pa.int16())
    return pa.schema(columns, metadata=_metadata(streams))


def _column(rows: Sequence[Record], name: str) -> list[Any]:
    if name == "extra":
        return [json.dumps(row.extra, ensure_ascii=False, sort_keys=True) for row in rows]
    if name == "words":
        keys = ("word", "start_s", "end_s")
        return [None if r.words is None else [dict(zip(keys, w, strict=True)) for w in r.words] for r in rows]
    return [getattr(row, name) for row in rows]


def _codes_column(codes: Sequence[np.ndarray | None]) -> pa.Array:
    """list<int16> from flat arrays, without a Python int per code."""
    flat = [np.ravel(item).astype(np.int16, casting="same_kind") for item in codes if item is not None]
    lengths = np.array([0 if item is None else item.size for item in codes], dtype=np.int32)
    offsets = pa.array(np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)]))
    values = pa.array(np.concatenate(flat) if flat else np.zeros(0, np.int16), pa.int16())
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array([item is None for item in codes], pa.bool_()))


def streams_of(schema: pa.Schema, path: str) -> dict[str, StreamInfo]:
    """The streams of a shard's schema. Raises InputError where `path` is no shard."""
    metadata = schema.metadata or {}
    if METADATA_KEY not in metadata:
        raise InputError(f"{path} is no shard of a token store: its schema has no {METADATA_KEY.decode()!r} metadata")
    return {name: StreamInfo(**info) for name, info in json.loads(metadata[METADATA_KEY])["streams"].items()}


def read_table(table: pa.Table, streams: Mapping[str, StreamInfo]) -> list[Record]:
    """The records of a table's rows, without their answers."""
    scalars = ("id", "text", "speaker", "lang", "duration_s", "caption", "kind", "split")
    columns = [table.column(name).to_pylist() for name in scalars]
    words = _word_lists(table.column("words").combine_chunks())
    extras = [json.loads(text) for text in table.column("extra").to_pylist()]
    codes = {name: _code_lists(table, name) for name in streams}
    durations = {
        name: _code_lists(table, name + DURATIONS) for name in streams if name + DURATIONS in table.column_names
    }
    return [
        Record(
            **dict(zip(scalars, values, strict=True)),
            words=words[i],
            extra=extras[i],
            streams=_present(codes, i),
            durations=_present(durations, i),
        )
        for i, values in enumerate(zip(*columns, strict=True))
    ]


def _present(columns: Mapping[str, list[np.ndarray | None]], row: int) -> dict[str, np.ndarray]:
    return {name: column[row] for name, column in columns.items() if column[row] is not None}  # type: ignore[misc]


def _bounds(column: pa.ListArray) -> tuple[list[int], list[bool]]:
    return column.offsets.to_numpy().tolist(), column.is_null().to_pylist()


def _code_lists(table: pa.Table, name: str) -> list[np.ndarray | None]:
    """Views into one flat array: a row costs a slice, not a Python list."""
    column = table.column(name).combine_chunks()
    bounds, null = _bounds(column)
    flat = column.values.to_numpy()
    return [None if null[i] else flat[bounds[i] : bounds[i + 1]] for i in range(len(column))]


def _word_lists(column: pa.ListArray) -> list[tuple[tuple[str, float, float], ...] | None]:
    bounds, null = _bounds(column)
    parts = (column.values.field(name).to_pylist() for name in ("word", "start_s", "end_s"))
    flat = list(zip(*parts, strict=True))
    return [None if null[i] else tuple(flat[bounds[i] : bounds[i + 1]]) for i in range(len(column))]


def _link_responses(records: list[Record]) -> None:
    if not any(link in record.extra for record in records for link in LINKS):
        return
    by_id = {record.id: record for record in records}
    for record in records:
        for link in LINKS:
            name = record.extra.get(link)  # a field of the user's own may have this name and hold anything
            answer = by_id.get(name) if isinstance(name, str) else None
            if answer is not None:
                object.__setattr__(record, link, answer)  # a link inside one store, made once while it opens
