"""Lhotse cuts, read with lhotse's own classes, one line at a time."""

import gzip
import json
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.corpus.adapters.base import Bad, Found, split_of
from data.corpus.adapters.folder import FolderAdapter, hash_file, matches
from data.corpus.adapters.supervisions import plain_fields, source_path, supervision_row
from data.errors import InputError
from data.manifest import RowError

_SPLIT = re.compile(r"(?:^|[-_.])(train|dev|valid|test|eval)")


class LhotseAdapter(FolderAdapter):
    """`corpus: {kind: lhotse, path: /data/fbank/cuts_train.jsonl.gz}`

    One utterance per supervision of a cut, or the cut itself where it has none. Names of files and their parts say
    the split. Cuts that are mixed, padded, transformed or held in memory are quarantined: save their audio first.
    """

    kind = "lhotse"
    title = "a Lhotse cut set"
    licence = "whatever the recordings' own terms are"
    layout = "  cuts_train.jsonl.gz   (or .jsonl; recordings of type file or url; relative paths count from here)"
    signs = ("*cuts*.jsonl", "*cuts*.jsonl.gz")

    @property
    def root(self) -> str:
        """The folder of the cut files."""
        return str(self.folder.parent if self.folder.is_file() else self.folder)

    def check_layout(self) -> None:
        """Raises InputError where there are no cuts."""
        if not self.folder.is_file() and not matches(self.folder, self.signs):
            raise self.unlike(self.signs)

    def content_id(self) -> str:
        """SHA-256 over the cut files."""
        self.check_layout()
        return "-".join(hash_file(path) for path in self._files())

    def rows(self) -> Iterator[Found | Bad]:
        """One row per supervision or cut without any."""
        self.check_layout()
        for path in self._files():
            named = _SPLIT.search(path.name)
            part = {"split": split_of(named[1])} if named else {}
            for number, line in enumerate(_lines(path), start=1):
                yield from _cut_rows(f"{path.name}:{number}", line, part)

    def _files(self) -> list[Path]:
        if self.folder.is_file():
            return [self.folder]
        return sorted({path for sign in self.signs for path in self.folder.glob(sign)})


def _cut_rows(where: str, line: bytes, part: dict[str, Any]) -> Iterator[Found | Bad]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lhotse.cut.set import deserialize_cut
    try:
        cut = deserialize_cut(json.loads(line))
    except Exception as error:  # lhotse's classes raise whatever a wrong field makes them stumble over
        yield Bad.of(where, None, "bad_field", f"no cut: {type(error).__name__}: {error}")
        return
    recording = getattr(cut, "recording", None)
    if recording is None:
        yield Bad.of(cut.id, None, "bad_field", f"a {type(cut).__name__} without a recording of its own")
        return
    for supervision in cut.supervisions or [None]:
        name = cut.id if supervision is None or len(cut.supervisions) == 1 else supervision.id
        try:
            row = _whole(cut) if supervision is None else supervision_row(recording, supervision, cut.start)
            yield Found({**plain_fields(cut.custom), **part, **row, "id": str(name)})
        except (RowError, AttributeError) as error:
            yield Bad.of(str(name), None, "bad_field", error)


def _whole(cut: Any) -> dict[str, Any]:
    whole = not cut.start and cut.duration == cut.recording.duration
    return {
        "audio_filepath": source_path(cut.recording, cut.channel),
        "offset": None if whole else cut.start,
        "duration": cut.duration,
        "sample_rate": cut.recording.sampling_rate,
    }


def _lines(path: Path) -> Iterator[bytes]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as handle:
            for line in handle:
                if line.strip():
                    yield line
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}: the file is no JSONL, or broken off") from None
