"""The one mapping from lhotse's recordings and supervisions to manifest rows."""

from typing import Any

from data.manifest import RowError

# lhotse's recipes name languages in English; manifests hold codes (ISO 639-1).
LANGUAGES = {
    "english": "en",
    "german": "de",
    "dutch": "nl",
    "spanish": "es",
    "french": "fr",
    "italian": "it",
    "portuguese": "pt",
    "polish": "pl",
}


def language_code(name: str | None) -> str | None:
    """The ISO 639-1 code of a language named in English; other names as they are."""
    return LANGUAGES.get(name.lower(), name) if name else None


def supervision_row(recording: Any, supervision: Any, start_s: float = 0.0, **fields: Any) -> dict[str, Any]:
    """The manifest row of a lhotse SupervisionSegment of a Recording.

    `start_s` is where the supervision's own clock starts in the recording (0, or a cut's start). Raises RowError for
    recordings that are no single file or URL, and for one channel out of several, as audio is mixed down when read.
    """
    offset = round(start_s + supervision.start, 6)
    whole = not offset and abs(supervision.duration - recording.duration) < 1e-6
    custom = plain_fields(supervision.custom)
    if getattr(supervision, "gender", None):
        custom["gender"] = supervision.gender
    return {
        **custom,
        "id": str(supervision.id),
        "audio_filepath": source_path(recording, supervision.channel),
        "offset": None if whole else offset,
        "duration": recording.duration if whole else supervision.duration,
        "text": supervision.text,
        "speaker": supervision.speaker,
        "lang": language_code(supervision.language),
        "words": _words(supervision),
        "sample_rate": recording.sampling_rate,
        **fields,
    }


def plain_fields(custom: dict[str, Any] | None) -> dict[str, Any]:
    """Custom fields that a manifest can hold: lhotse also keeps arrays and recordings there."""
    return {
        name: value for name, value in (custom or {}).items() if value is None or isinstance(value, str | int | float)
    }


def source_path(recording: Any, channel: Any = None) -> str:
    """The file or URL of a lhotse Recording. Raises RowError."""
    if len(recording.sources) != 1:
        raise RowError(f"recording {recording.id!r} has {len(recording.sources)} sources, expected one file or URL")
    source = recording.sources[0]
    if source.type not in ("file", "url"):
        raise RowError(f"recording {recording.id!r} is of type {source.type!r}, expected file or url")
    if recording.transforms:
        raise RowError(f"recording {recording.id!r} is transformed ({recording.transforms!r:.80}): save it as audio")
    wanted = set(channel) if isinstance(channel, list | tuple) else {channel}
    if channel is not None and wanted != set(source.channels) and len(source.channels) > 1:
        raise RowError(
            f"channel {channel} of {len(source.channels)} is meant, and channels are mixed when read: split them"
        )
    return str(source.source)


def _words(supervision: Any) -> list[list[Any]] | None:
    """[[word, start_s, end_s], …] inside the supervision; silences, which have no symbol, are left out."""
    aligned = (supervision.alignment or {}).get("word")
    if not aligned:
        return None
    begin = supervision.start
    return [
        [item.symbol, round(max(item.start - begin, 0.0), 6), round(max(item.end - begin, 0.0), 6)]
        for item in aligned
        if item.symbol
    ]
