"""Hugging Face's `audiofolder`: audio files anywhere, described by metadata tables with `file_name`."""

import csv
import io
import json
import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data import storage
from data.corpus.adapters.base import Bad, Found, split_of
from data.corpus.adapters.folder import FolderAdapter, is_audio, read_table
from data.errors import InputError
from data.manifest import RowError, parse_row

_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SPLIT_FOLDERS = frozenset({"train", "training", "dev", "validation", "valid", "test", "testing", "eval", "evaluation"})


class AudioFolderAdapter(FolderAdapter):
    """`corpus: {kind: audiofolder, path: /data/mine, fields: {text: transcription}}`

    A file that no table names is kept, without text. A folder named train, validation or test on the way to a file
    says its split; without tables, the last other folder is its `label`.
    """

    kind = "audiofolder"
    title = "an audiofolder"
    licence = "whatever the recordings' own terms are"
    layout = (
        "  train/metadata.csv   (file_name, transcription, …; or metadata.jsonl, metadata.parquet)\n  train/0001.wav"
    )
    signs = ("metadata.*", "*/metadata.*", "**/*.wav", "**/*.flac", "**/*.mp3", "**/*.ogg", "**/*.opus", "**/*.m4a")

    def rows(self) -> Iterator[Found | Bad]:
        """One row per line of the tables, and per audio file that none of them names."""
        self.check_layout()
        names = self.listing()
        tables = [name for name in names if PurePosixPath(name).name in _TABLES]
        named: set[str] = set()
        for table in tables:
            for row in self._read(table):
                if isinstance(row, Bad):
                    yield row
                    continue
                found = self._described(table, row)
                if isinstance(found, Found):
                    named.add(found.row["audio_filepath"])
                yield found
        for name in names:
            if is_audio(name) and name not in named:
                yield Found({**_from_path(name, labelled=not tables), "audio_filepath": name})

    def _read(self, name: str) -> Iterator[dict[str, Any] | Bad]:
        path = self.folder / name
        if path.suffix == ".csv":
            yield from self._csv_rows(path)
        elif path.suffix == ".parquet":
            yield from _parquet_rows(path)
        else:
            for number, line in enumerate(storage.read_bytes(path).splitlines(), start=1):
                if line.strip():
                    try:
                        yield parse_row(line)
                    except RowError as error:
                        yield Bad.of(f"{name}:{number}", None, "not_json", error)

    def _csv_rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """A cell is text, whatever it means: times become numbers, as the other tables have them."""
        times = {self.config.fields.get(name, name) for name in ("offset", "duration")}
        reader = csv.DictReader(io.StringIO(read_table(path), newline=""))
        try:
            for row in reader:
                yield {name: _number(cell) if name in times else cell for name, cell in row.items()}
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: {error}: is a quotation mark before it left open?"
            ) from None

    def _described(self, table: str, row: dict[str, Any]) -> Found | Bad:
        file = row.get("file_name")
        if not isinstance(file, str) or not file:
            return Bad.of(
                None, file, "bad_field", f"{table}: file_name is {file!r}; the row has {sorted(map(str, row))}"
            )
        path = posixpath.normpath(PurePosixPath(table).parent / file)
        rest = {name: value for name, value in row.items() if isinstance(name, str) and name != "file_name"}
        return Found({**_from_path(path, labelled=False), **rest, "audio_filepath": path})


def _from_path(name: str, labelled: bool) -> dict[str, Any]:
    folders = PurePosixPath(name).parts[:-1]
    splits = [folder for folder in folders if folder.lower() in _SPLIT_FOLDERS]
    labels = [folder for folder in folders if folder not in splits and folder != "data"]
    found = {"split": split_of(splits[-1])} if splits else {}
    return {**found, "label": labels[-1]} if labelled and labels else found


def _number(cell: Any) -> Any:
    """What a cell says; what is no number stays as it is, and makes a bad row."""
    try:
        return float(cell) if cell else None
    except (TypeError, ValueError):
        return cell


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        batches = list(parquet.ParquetFile(path).iter_batches())
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: {error}: the table is no Parquet, or broken off") from None
    for batch in batches:
        for row in batch.to_pylist():
            yield json.loads(json.dumps(row, default=str))  # dates and bytes have no JSON form
