"""What a corpus holds, in numbers: summary.json after the work, and the lines of a dry run before it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import soundfile

from data import storage
from data.config import BuiltinCorpus
from data.corpus.builtin import plan_speech
from data.corpus.config import ManifestCorpus
from data.corpus.imported import import_manifest
from data.manifest import Utterance

_SECONDS_PER_WORD = 0.4  # of espeak-ng at the rates drawn; a plan may be rough
_PROBED_FILES = 8


def summarize(utterances: Sequence[Utterance], num_quarantined: int) -> dict[str, Any]:
    """Counts and hours, in all and per split and part (built-in) or kind (imported)."""
    parts: dict[str, dict[str, Any]] = {}
    for utterance in utterances:
        name = f"{utterance.split}/{utterance.extra.get('part', utterance.kind)}"
        entry = parts.setdefault(name, {"utterances": 0, "hours": 0.0, "without_duration": 0})
        entry["utterances"] += 1
        entry["hours"] += (utterance.duration or 0.0) / 3600
        entry["without_duration"] += utterance.duration is None
    for entry in parts.values():
        entry["hours"] = round(entry["hours"], 5)
    return {
        "utterances": len(utterances),
        "hours": round(sum(utterance.duration or 0.0 for utterance in utterances) / 3600, 5),
        "speakers": sorted({utterance.speaker for utterance in utterances if utterance.speaker}),
        "parts": parts,
        "quarantined": num_quarantined,
    }


def plan_builtin(config: BuiltinCorpus, seed: int) -> list[str]:
    """The lines of a dry run of the built-in corpus."""
    planned = plan_speech(config, seed)
    counts = Counter(f"{spoken.split}/{spoken.extra['part']}" for spoken in planned)
    music = config.music
    counts.update({"train/music": music.train_clips, "dev/music": music.dev_clips, "test/music": music.test_clips})
    clips = music.train_clips + music.dev_clips + music.test_clips
    words = sum(len(spoken.text.split()) for spoken in planned)
    hours = (words * _SECONDS_PER_WORD + clips * music.duration_s) / 3600
    return [
        *(f"{name:<18}{count} utterances" for name, count in counts.items()),
        f"total             {len(planned) + clips} utterances, about {hours:.1f} h, "
        f"{len({spoken.voice for spoken in planned})} speakers, {config.sample_rate} Hz",
    ]


def plan_imported(config: ManifestCorpus) -> list[str]:
    """The lines of a dry run of a brought manifest."""
    imported = import_manifest(config)
    summary = summarize(imported.utterances, len(imported.quarantine))
    return [
        *(
            f"{name:<18}{entry['utterances']} utterances, {entry['hours']:.2f} h"
            for name, entry in summary["parts"].items()
        ),
        f"total             {summary['utterances']} utterances, {summary['hours']:.2f} h, "
        f"{len(summary['speakers'])} speakers, {_rates(imported.utterances)}",
        f"quarantined       {summary['quarantined']} rows",
    ]


def _rates(utterances: Sequence[Utterance]) -> str:
    """Sample rates as the manifest has them, else from the headers of the first local files."""
    stated = {rate for utterance in utterances if isinstance(rate := utterance.extra.get("sample_rate"), int)}
    if not stated:
        stated = {rate for utterance in utterances[:_PROBED_FILES] if (rate := _header_rate(utterance.audio_filepath))}
    return ", ".join(f"{rate} Hz" for rate in sorted(stated)) or "rates unknown"


def _header_rate(path: str) -> int | None:
    if storage.is_url(path):
        return None
    try:
        return int(soundfile.info(path).samplerate)
    except soundfile.SoundFileError:
        return None  # the tokenizer job names the file and quarantines it
