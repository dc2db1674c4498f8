"""What a large token store needs beside it, so that training starts at once: its rows at hand, and how long they are.

    records.arrow   the rows of all shards, uncompressed (data.rows)
    by_id.npy       int32 (N,): indices of the rows in the order of their ids
    lengths-0.npy … int32 (N,): lengths under the first task, … (data.lengths); 0 where the row is of another split
    sidecar.json    fingerprint, tasks, and what else its maker found out from the rows; written last

Made once per (store, vocabulary with its text tokenizer, formats) by one writer; a fingerprint of these is kept with
it, and a sidecar of another one is refused. Readers memory-map it: a URL is fetched to this machine once.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from data import storage
from data.errors import InputError
from data.grammar.base import Grammar
from data.grammar.layout import Codes, Fixed, Layout, Written, layout_of
from data.lengths import UNKNOWN, Lengths
from data.rows import Rows, write_rows
from data.store import StreamInfo, TokenStore, read_shards

MANIFEST = "sidecar.json"
ROWS = "records.arrow"
BY_ID = "by_id"
_FOOTER_BYTES = 1 << 16


def store_fingerprint(folder: str) -> str:
    """What tells a store from another without reading it whole: its shards' names and sizes, and what ends each file
    (Parquet's account of its columns), or what its finished run folder says of itself."""
    finished = storage.join(folder, "_SUCCESS")
    sizes = storage.list_sizes(folder)
    found: dict[str, Any] = {name: size for name, size in sizes.items() if name.endswith(".parquet")}
    if storage.exists(finished):
        found["_SUCCESS"] = storage.read_text(finished)
    else:
        for name, size in found.items():
            ending = storage.read_range(storage.join(folder, name), max(0, size - _FOOTER_BYTES), size)
            found[name] = [size, storage.hash_bytes(ending)]
    return storage.hash_json(found)


def sidecar_fingerprint(store: str, of: Any) -> str:
    """The fingerprint of a sidecar for the store in a folder; `of` is what else its lengths hang on (JSON)."""
    return storage.hash_json({"store": store_fingerprint(store), "of": of})


Describe = Callable[[TokenStore], tuple[Mapping[str, Grammar], dict[str, Any]]]


def build_sidecar(store: str, folder: str, describe: Describe, fingerprint: str, split: str) -> None:
    """Write the sidecar of a store's folder for the records of a split. Memory does not grow with the store but for
    the arrays. `describe` gives, of the store with its rows at hand, the tasks' grammars and what else to keep (JSON).
    Raises InputError as TokenStore.open does."""
    storage.delete(folder)
    streams, _ = next(read_shards(store))
    with tempfile.TemporaryDirectory() as temporary:
        local = temporary if storage.is_url(folder) else folder
        rows = store_rows(local, (table for _, table in read_shards(store)), streams)
        grammars, about = describe(TokenStore(rows, rows.streams))
        store_lengths(local, Lengths(rows.by_id, measured_lengths(rows, grammars, split)), fingerprint, about)
        if local != folder:
            for name in sorted(storage.list_files(local), key=lambda name: name == MANIFEST):
                storage.copy_file(storage.join(local, name), storage.join(folder, name))


def store_rows(folder: str, tables: Iterable[pa.Table], streams: Mapping[str, StreamInfo]) -> Rows:
    """Write the rows of a local folder's sidecar."""
    with storage.writing(storage.join(folder, ROWS)) as handle:
        write_rows(handle, tables, streams)
    return Rows(storage.join(folder, ROWS))


def store_lengths(folder: str, lengths: Lengths, fingerprint: str, about: dict[str, Any]) -> None:
    """Write all else, the manifest last."""
    tasks = sorted(lengths.by_task)
    _write_array(folder, BY_ID, lengths.by_id)
    for number, task in enumerate(tasks):
        _write_array(folder, _array_name(number), lengths.by_task[task])
    storage.write_json(storage.join(folder, MANIFEST), {"fingerprint": fingerprint, "tasks": tasks, "about": about})


def measured_lengths(rows: Rows, grammars: Mapping[str, Grammar], split: str) -> dict[str, np.ndarray]:
    """task -> lengths of the rows. Of codes alone they are counted by columns; else every row is looked at."""
    chosen = rows.in_split(split)
    found = {task: _counted(rows, layout_of(grammar)) for task, grammar in grammars.items()}
    others = {task: grammar for task, grammar in grammars.items() if found[task] is None}
    lengths = {task: np.zeros(len(rows), np.int32) if known is None else known for task, known in found.items()}
    for index, record in enumerate(rows) if others else ():
        for task, grammar in others.items() if chosen[index] else ():
            if grammar.accepts(record):
                lengths[task][index] = UNKNOWN if grammar.draws else grammar.measure(record)
    return {task: np.where(chosen, known, 0).astype(np.int32) for task, known in lengths.items()}


def _counted(rows: Rows, layout: Layout | None) -> np.ndarray | None:
    """Lengths of sequences of codes alone, one codebook a stream; None for others."""
    if layout is None or any(isinstance(p, Written) or (isinstance(p, Codes) and p.encode) for p in layout):
        return None
    length = np.full(len(rows), sum(len(piece.ids) for piece in layout if isinstance(piece, Fixed)), dtype=np.int32)
    whole = np.ones(len(rows), dtype=bool)
    for piece in layout:
        if isinstance(piece, Codes):
            counts = rows.code_counts(piece.stream)
            length += counts
            whole &= counts > 0
    return np.where(whole, length, 0)


class Sidecar(NamedTuple):
    """The store, its rows read when asked for; their lengths; and what its maker found out from the rows."""

    store: TokenStore
    lengths: Lengths
    about: dict[str, Any]


def open_sidecar(folder: str, fingerprint: str) -> Sidecar | None:
    """The sidecar in a folder; None where there is none.

    Raises InputError for a sidecar of something else, and for a damaged one.
    """
    file = storage.join(folder, MANIFEST)
    if not storage.exists(file):
        return None
    try:
        return _opened(folder, storage.read_json(file), fingerprint)
    except (InputError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        storage.forget_local(folder, fingerprint)  # what is made again has this fingerprint too
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the sidecar in {folder!r} is damaged ({error}): delete the folder, it will be made again"
        ) from None


def _opened(folder: str, manifest: Mapping[str, Any], fingerprint: str) -> Sidecar:
    if manifest["fingerprint"] != fingerprint:
        raise InputError(
            f"the sidecar in {folder!r} is of {manifest['fingerprint'][:12]}, this store and recipe are "
            f"{fingerprint[:12]}: delete the folder, it will be made again"
        )
    local = storage.local_folder(folder, fingerprint)
    names = [BY_ID, *map(_array_name, range(len(manifest["tasks"])))]
    by_id, *lengths = (np.load(local / f"{name}.npy", mmap_mode="r") for name in names)
    rows = Rows(str(local / ROWS), by_id)
    sizes = [len(array) for array in (by_id, *lengths)]
    if set(sizes) != {len(rows)}:
        raise ValueError(f"{len(rows)} rows, {sizes} of them in the arrays")
    by_task = dict(zip(manifest["tasks"], lengths, strict=True))
    return Sidecar(TokenStore(rows, rows.streams), Lengths(by_id, by_task), manifest["about"])


def _array_name(number: int) -> str:
    return f"lengths-{number}"


def _write_array(folder: str, name: str, values: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, values)
    storage.write_bytes(storage.join(folder, f"{name}.npy"), content.getvalue())
