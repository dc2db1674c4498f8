"""Plain JSONL manifests, NeMo's names or any others that `corpus.fields` renames."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data import storage
from data.corpus.adapters.base import Bad, Found
from data.corpus.config import ManifestCorpus
from data.errors import InputError
from data.manifest import RowError, parse_row

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ManifestAdapter:
    """`corpus: {kind: manifest, manifest: /data/mine/manifest.jsonl, fields: {text: transcript}}`"""

    kind = "manifest"
    title = "a JSONL manifest"
    licence = "whatever the recordings' own terms are"
    layout = '  {"audio_filepath": "a.wav", "duration": 2.4, "text": "hello"}   one object a line'
    signs = ("*.jsonl",)

    def __init__(self, config: ManifestCorpus) -> None:
        self.config = config

    @property
    def root(self) -> str:
        """The manifest's folder."""
        path = self.config.manifest
        return path.rpartition("/")[0] if storage.is_url(path) else str(Path(path).resolve().parent)

    def content_id(self) -> str:
        """The hash of the manifest's bytes."""
        return storage.hash_bytes(self._content())

    def rows(self) -> Iterator[Found | Bad]:
        """One row per line. Raises InputError where the manifest is missing or no line is an object."""
        found: list[dict[str, Any]] = []
        wrong: list[Bad] = []
        for number, line in enumerate(self._content().removeprefix(_BYTE_ORDER_MARK).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                found.append(parse_row(line))
            except RowError as error:
                wrong.append(Bad.of(f"line-{number}", None, "not_json", error))
        if not found:
            seen = f"its first line fails: {wrong[0].row['detail']}" if wrong else "it is empty"
            raise InputError(
                f"corpus.manifest={self.config.manifest!r} is not JSONL ({seen}): write one JSON object a line, e.g. "
                '{"audio_filepath": "a.wav", "duration": 2.4, "text": "hello"}'
            )
        self._check_names({name for row in found for name in row})
        yield from wrong
        for row in found:
            yield Found(row)

    def _check_names(self, names: set[str]) -> None:
        if "audio_filepath" not in self.config.fields and "audio_filepath" not in names:
            raise InputError(
                f"corpus.manifest={self.config.manifest!r}: no row has audio_filepath; the rows have {sorted(names)}: "
                "name the field that holds the audio's path, e.g. corpus.fields.audio_filepath=path"
            )

    def _content(self) -> bytes:
        try:
            return storage.read_bytes(self.config.manifest)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise InputError(
                f"corpus.manifest={self.config.manifest!r} is no file: give the path or URL of a JSONL manifest, "
                "one utterance a line"
            ) from None
