"""A manifest that the user brings: renamed, checked row by row, split by hold-outs, and never decoded here."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from data import storage
from data.corpus.config import ManifestCorpus
from data.errors import InputError
from data.manifest import FIELDS, SPLITS, RowError, Utterance, default_id, parse_row, resolve_path

PUNCTUATION_KEPT = "'"


@dataclass(frozen=True)
class Imported:
    """What a manifest holds: the utterances with absolute audio paths, and quarantine rows for the rest."""

    utterances: list[Utterance]
    quarantine: list[dict[str, Any]]


def manifest_bytes(config: ManifestCorpus) -> bytes:
    """The manifest as it is. Raises InputError where there is none."""
    try:
        return storage.read_bytes(config.manifest)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(
            f"corpus.manifest={config.manifest!r} is no file: give the path or URL of a JSONL manifest, "
            "one utterance a line"
        ) from None


def import_manifest(config: ManifestCorpus) -> Imported:
    """Read the manifest of `config`.

    Raises InputError when it is missing, no JSONL, or lacks a field in every row that the recipe needs.
    """
    parsed, quarantine = _parse_lines(config)
    rows = [row for row in parsed if row is not None]
    _check_fields(config, rows)
    utterances: list[Utterance] = []
    seen: dict[str, int] = {}
    for original in rows:
        row = _rename(config, original)
        try:
            utterance = Utterance.from_row({**row, "split": _split(config, row, original)})
        except RowError as error:
            path = row.get("audio_filepath")
            quarantine.append(_bad(str(row.get("id") or default_id(str(path), 0.0, None)), path, "bad_field", error))
            continue
        seen[utterance.id] = seen.get(utterance.id, 0) + 1
        if seen[utterance.id] > 1:
            name = f"{utterance.id}#{seen[utterance.id]}"
            detail = f"id {utterance.id!r} stands in an earlier row, which is kept"
            quarantine.append(_bad(name, utterance.audio_filepath, "duplicate_id", detail))
            continue
        utterances.append(_finish(config, utterance))
    _check_outcome(config, utterances, quarantine)
    return Imported(utterances, quarantine)


def normalize_text(text: str) -> str:
    """Lower case, without punctuation but the apostrophe, single spaces."""
    kept = (char if char.isalnum() or char in PUNCTUATION_KEPT else " " for char in text.lower())
    return " ".join("".join(kept).split())


def _parse_lines(config: ManifestCorpus) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    content = manifest_bytes(config).removeprefix(b"\xef\xbb\xbf")
    rows: list[dict[str, Any]] = []
    quarantine: list[dict[str, Any]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(parse_row(line))
        except RowError as error:
            quarantine.append(_bad(f"line-{number}", None, "not_json", error))
    if not rows:
        seen = f"its first line fails: {quarantine[0]['detail']}" if quarantine else "it is empty"
        raise InputError(
            f"corpus.manifest={config.manifest!r} is not JSONL ({seen}): write one JSON object a line, e.g. "
            '{"audio_filepath": "a.wav", "duration": 2.4, "text": "hello"}'
        )
    return rows, quarantine


def _check_fields(config: ManifestCorpus, rows: list[dict[str, Any]]) -> None:
    names = sorted({name for row in rows for name in row})
    for ours, theirs in config.fields.items():
        if ours not in FIELDS:
            raise InputError(f"corpus.fields.{ours}: no field of ours; rename one of {', '.join(FIELDS)}")
        if theirs not in names:
            raise InputError(f"corpus.fields.{ours}={theirs!r}: no row has that field; the rows have {names}")
    if "audio_filepath" not in config.fields and "audio_filepath" not in names:
        raise InputError(
            f"corpus.manifest={config.manifest!r}: no row has audio_filepath; the rows have {names}: "
            "name the field that holds the audio's path, e.g. corpus.fields.audio_filepath=path"
        )
    for key, holdout in (("test", config.test), ("dev", config.dev)):
        for name, values in holdout.items():
            if name not in names and name not in config.fields:
                raise InputError(f"corpus.{key}.{name}: no row has that field; the rows have {names}")
            found = sorted({str(_value(config, name, row)) for row in rows})
            if not {str(value) for value in values} & set(found):
                raise InputError(
                    f"corpus.{key}.{name}={values!r} holds nothing out: the rows have {', '.join(found[:20])}"
                )


def _rename(config: ManifestCorpus, row: dict[str, Any]) -> dict[str, Any]:
    taken = set(config.fields.values()) - set(config.fields)
    kept = {name: value for name, value in row.items() if name not in taken}
    return {**kept, **{ours: row.get(theirs) for ours, theirs in config.fields.items()}}


def _value(config: ManifestCorpus, name: str, original: dict[str, Any]) -> Any:
    """A field by our name or by the manifest's."""
    return original.get(config.fields.get(name, name), original.get(name))


def _split(config: ManifestCorpus, row: dict[str, Any], original: dict[str, Any]) -> Any:
    for split, holdout in (("test", config.test), ("dev", config.dev)):
        if any(str(_value(config, name, original)) in map(str, values) for name, values in holdout.items()):
            return split
    own = row.get("split")
    # A hold-out by `split` itself says what the manifest's own names ("test-clean") mean; the rest trains.
    return "train" if own not in SPLITS and "split" in (*config.test, *config.dev) else own


def _finish(config: ManifestCorpus, utterance: Utterance) -> Utterance:
    text = utterance.text
    if config.normalize_text and text is not None:
        text = normalize_text(text)
    return replace(utterance, text=text, audio_filepath=resolve_path(config.manifest, utterance.audio_filepath))


def _check_outcome(config: ManifestCorpus, utterances: list[Utterance], quarantine: Iterable[dict[str, Any]]) -> None:
    if not utterances:
        details = [row["detail"] for row in quarantine]
        raise InputError(f"corpus.manifest={config.manifest!r}: every row is wrong; the first: {details[0]}")


def _bad(identity: str, path: Any, reason: str, detail: Any) -> dict[str, Any]:
    return {"id": identity, "audio_filepath": path, "reason": reason, "detail": str(detail)}
