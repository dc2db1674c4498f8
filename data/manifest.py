"""Manifests: JSONL, one utterance a line, with NeMo's field names."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data import storage
from data.errors import InputError

SPLITS = ("train", "dev", "test")
KINDS = ("speech", "music")
PART_OF_FILE = "part_of_file"  # a field of utterances that begin with their file and do not speak of the whole of it

_REMEDIES = {
    "split": "corpus.test={split: […]} and corpus.dev say what of it is held out",
    "kind": "corpus.fields.kind='' leaves a field out that means something else",
}
_MAX_S = 1e9  # no recording; larger numbers overflow where they become samples

Word = tuple[str, float, float]


class RowError(ValueError):
    """A row whose fields are wrong. Its message becomes the `detail` of a quarantine row."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a manifest. `words` are (word, start_s, end_s); `extra` holds the fields unknown to us."""

    id: str
    audio_filepath: str
    duration: float | None = None
    offset: float = 0.0
    text: str | None = None
    speaker: str | None = None
    lang: str | None = None
    kind: str = "speech"
    caption: str | None = None
    words: tuple[Word, ...] | None = None
    split: str = "train"
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Utterance":
        """Check and convert one parsed line. Raises RowError that names field, value and what was expected."""
        path = row.get("audio_filepath")
        if not isinstance(path, str) or not path:
            raise RowError(f"audio_filepath is {path!r}, expected a path or URL")
        duration = _number(row, "duration")
        offset = _number(row, "offset") or 0.0
        identity = _string(row, "id", numbers=True)
        return cls(
            id=identity if identity else default_id(path, offset, duration),
            audio_filepath=path,
            duration=duration,
            offset=offset,
            text=_string(row, "text"),
            speaker=_string(row, "speaker", numbers=True),
            lang=_string(row, "lang"),
            kind=_choice(row, "kind", KINDS),
            caption=_string(row, "caption"),
            words=_words(row),
            split=_choice(row, "split", SPLITS),
            extra={key: value for key, value in row.items() if key not in FIELDS},
        )

    @property
    def is_whole_file(self) -> bool:
        """Whether `duration`, where it is stated, is that of the file."""
        return not self.offset and self.extra.get(PART_OF_FILE) is not True

    def as_part_of_file(self) -> "Utterance":
        """The same, marked where it would be taken for the whole of its file."""
        if self.duration is None or not self.is_whole_file:
            return self
        return replace(self, extra={**self.extra, PART_OF_FILE: True})

    def to_row(self) -> dict[str, Any]:
        """The JSON form, unknown fields beside ours; `from_row` gives the same utterance back."""
        row = {name: getattr(self, name) for name in FIELDS}
        row["words"] = None if self.words is None else [list(word) for word in self.words]
        return {**row, **self.extra}


FIELDS = tuple(name for name in Utterance.__dataclass_fields__ if name != "extra")


def default_id(path: str, offset: float, duration: float | None) -> str:
    """The id of a row that names none: hash of the path as written, the offset and the duration."""
    return storage.hash_json([path, float(offset), duration])[:16]


def read_manifest(path: str | Path) -> Iterator[Utterance]:
    """The utterances of a manifest that a job has written. Raises InputError at a row that is not one."""
    for number, row in enumerate(storage.read_jsonl(path), start=1):
        try:
            yield Utterance.from_row(row)
        except RowError as error:
            raise InputError(f"{path}, row {number}: {error}; import it through corpus.kind=manifest") from None


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write one line per utterance."""
    storage.write_jsonl(path, (utterance.to_row() for utterance in utterances))


def resolve_audio(manifest_path: str | Path, utterance: Utterance) -> str:
    """Absolute path or URL of an utterance's audio; relative ones count from the manifest's folder."""
    return resolve_path(manifest_path, utterance.audio_filepath)


def resolve_path(manifest_path: str | Path, audio_filepath: str) -> str:
    """Absolute path or URL of `audio_filepath` as written in the manifest at `manifest_path`."""
    if storage.is_url(manifest_path):
        return storage.join(str(manifest_path).rpartition("/")[0], audio_filepath)
    return storage.join(Path(manifest_path).resolve().parent, audio_filepath)


def parse_row(line: bytes) -> dict[str, Any]:
    """One line of JSONL as an object. Raises RowError for anything else, text that is not Unicode included."""
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # lone surrogates pass json.loads and fail everything after it
    except (ValueError, RecursionError) as error:
        raise RowError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise RowError(f"holds {type(row).__name__}, expected an object")
    return row


def _string(row: dict[str, Any], name: str, numbers: bool = False) -> str | None:
    value = row.get(name)
    if numbers and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise RowError(f"{name} is {value!r}, expected a string")
    return value


def _number(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_S:
        raise RowError(f"{name} is {value!r:.80}, expected a number of seconds, 0 or more")
    return float(value)


def _choice(row: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = row.get(name)
    if value is None:
        return choices[0]
    if value not in choices:
        raise RowError(f"{name} is {value!r:.80}, expected one of {', '.join(choices)} ({_REMEDIES[name]})")
    return str(value)


def _words(row: dict[str, Any]) -> tuple[Word, ...] | None:
    value = row.get("words")
    if value is None:
        return None
    try:
        words = tuple(_word(*item) for item in value)
    except (TypeError, ValueError, OverflowError):
        raise RowError(f"words is {value!r:.80}, expected [[word, start_s, end_s], …]") from None
    if any(not 0 <= start <= end <= _MAX_S for _, start, end in words):
        raise RowError("words hold a span that ends before it starts, or lies beyond any recording")
    return words


def _word(word: Any, start_s: Any, end_s: Any) -> Word:
    if not isinstance(word, str | int | float):
        raise TypeError(word)
    return str(word), float(start_s), float(end_s)
