"""What every brought corpus goes through: renamed, checked row by row, split by hold-outs; audio is never decoded."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from data import storage
from data.corpus.adapters.base import Bad, CorpusAdapter, Found, open_corpus
from data.corpus.config import BroughtCorpus
from data.errors import InputError
from data.manifest import FIELDS, SPLITS, RowError, Utterance

PUNCTUATION_KEPT = "'"
_SHOWN_VALUES = 20

KeepAudio = Callable[[Utterance, bytes], None]
"""Takes audio that is in no file of its own: the utterance, its path as the manifest will have it, and the bytes."""


@dataclass(frozen=True)
class Imported:
    """What a corpus holds: the utterances with absolute audio paths, and quarantine rows for the rest.

    Audio that was kept by `KeepAudio` has a path relative to the manifest's folder.
    """

    utterances: list[Utterance]
    quarantine: list[dict[str, Any]]


@dataclass
class _Seen:
    """What the rows had, for errors about the whole."""

    names: set[str] = field(default_factory=set)
    held: dict[str, set[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def import_corpus(
    config: BroughtCorpus, keep: KeepAudio | None = None, taken: dict[str, int] | None = None
) -> Imported:
    """Read the corpus of `config`. Bad rows, and later rows of an id that is taken, go to quarantine.

    `taken` counts the ids of corpora that came before; those of this one are added.

    Raises InputError when it is missing, laid out otherwise, or lacks a field in every row that the recipe needs.
    """
    adapter = open_corpus(config)
    _check_renames(config)
    utterances: list[Utterance] = []
    quarantine: list[dict[str, Any]] = []
    seen = _Seen(counts=taken if taken is not None else {})
    for item in adapter.rows():
        outcome = _admit(config, adapter, item, seen, keep) if isinstance(item, Found) else item
        if isinstance(outcome, Bad):
            quarantine.append(outcome.row)
        else:
            utterances.append(outcome)
    _check_rows(config, seen)
    if not utterances:
        details = [row["detail"] for row in quarantine] or [f"no utterance of {adapter.title} is there"]
        raise InputError(f"{where(config)}: every row is wrong; the first: {details[0]}")
    return Imported(_parts_marked(utterances), quarantine)


def where(config: BroughtCorpus) -> str:
    """The key and value that say where a corpus is."""
    key = "manifest" if hasattr(config, "manifest") else "path"
    return f"corpus.{key}={getattr(config, key)!r}"


def normalize_text(text: str) -> str:
    """Lower case, without punctuation but the apostrophe, single spaces."""
    kept = (char if char.isalnum() or char in PUNCTUATION_KEPT else " " for char in text.lower())
    return " ".join("".join(kept).split())


def _admit(
    config: BroughtCorpus, adapter: CorpusAdapter, item: Found, seen: _Seen, keep: KeepAudio | None
) -> Utterance | Bad:
    original = item.row
    seen.names.update(original)
    for name in (*config.test, *config.dev):
        seen.held.setdefault(name, set()).add(str(_value(config, name, original)))
    row = _rename(config, original)
    try:
        _check_unicode(row)
        utterance = Utterance.from_row({**row, "split": _split(config, row, original)})
    except RowError as error:
        path = row.get("audio_filepath")
        return Bad.of(str(row.get("id") or "") or None, path, "bad_field", error)
    number = seen.counts[utterance.id] = seen.counts.get(utterance.id, 0) + 1
    if number > 1:
        detail = f"id {utterance.id!r} stands in an earlier row, which is kept"
        return Bad.of(f"{utterance.id}#{number}", utterance.audio_filepath, "duplicate_id", detail)
    if row.get("offset") is not None:
        utterance = utterance.as_part_of_file()
    utterance = _finish(config, adapter.root, utterance, kept=item.content is not None)
    if keep and item.content is not None:
        keep(utterance, item.content)
    return utterance


def _check_unicode(row: dict[str, Any]) -> None:
    """Raises RowError for a row that could not be written to a manifest."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RowError(f"text that is not Unicode, or not in UTF-8: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError(f"a value that JSON cannot hold: {error}") from None


def _finish(config: BroughtCorpus, root: str, utterance: Utterance, kept: bool) -> Utterance:
    path = _kept_path(utterance) if kept else storage.join(root, utterance.audio_filepath)
    text = utterance.text
    if config.normalize_text and text is not None:
        text = normalize_text(text)
    return replace(utterance, text=text, audio_filepath=path)


def _parts_marked(utterances: list[Utterance]) -> list[Utterance]:
    """The same; a row without an offset is no whole file where further rows have what follows of it."""
    cut = {utterance.audio_filepath for utterance in utterances if utterance.offset}
    return [u.as_part_of_file() if u.audio_filepath in cut else u for u in utterances]


def _kept_path(utterance: Utterance) -> str:
    """A name that any file system takes, spread over folders as one folder of a million files serves nobody."""
    name = storage.hash_json(utterance.id)[:20]
    return f"audio/{name[:2]}/{name}{PurePosixPath(utterance.audio_filepath).suffix.lower()}"


def _check_renames(config: BroughtCorpus) -> None:
    for ours in config.fields:
        if ours not in FIELDS:
            raise InputError(f"corpus.fields.{ours}: no field of ours; rename one of {', '.join(FIELDS)}")


def _check_rows(config: BroughtCorpus, seen: _Seen) -> None:
    names = sorted(seen.names)
    for ours, theirs in config.fields.items():
        if theirs and theirs not in seen.names:
            raise InputError(f"corpus.fields.{ours}={theirs!r}: no row has that field; the rows have {names}")
    for key, holdout in (("test", config.test), ("dev", config.dev)):
        for name, values in holdout.items():
            if name not in seen.names and name not in config.fields:
                raise InputError(f"corpus.{key}.{name}: no row has that field; the rows have {names}")
            found = sorted(seen.held[name])
            if not {str(value) for value in values} & set(found):
                raise InputError(
                    f"corpus.{key}.{name}={values!r} holds nothing out: the rows have "
                    f"{', '.join(found[:_SHOWN_VALUES])}"
                )


def _rename(config: BroughtCorpus, row: dict[str, Any]) -> dict[str, Any]:
    taken = set(config.fields.values()) - set(config.fields)
    kept = {name: value for name, value in row.items() if name not in taken}
    return {**kept, **{ours: row.get(theirs) if theirs else None for ours, theirs in config.fields.items()}}


def _value(config: BroughtCorpus, name: str, original: dict[str, Any]) -> Any:
    """A field by our name or by the corpus'."""
    return original.get(config.fields.get(name, name), original.get(name))


def _split(config: BroughtCorpus, row: dict[str, Any], original: dict[str, Any]) -> Any:
    for split, holdout in (("test", config.test), ("dev", config.dev)):
        if any(str(_value(config, name, original)) in map(str, values) for name, values in holdout.items()):
            return split
    own = row.get("split")
    # A hold-out by `split` itself says what the corpus' own names ("test-clean") mean; the rest trains.
    return "train" if own not in SPLITS and "split" in (*config.test, *config.dev) else own
