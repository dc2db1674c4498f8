"""What a corpus holds, in numbers: summary.json after the work, and the lines of a dry run before it."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from data.config import BuiltinCorpus
from data.corpus.adapters.base import adapter_class
from data.corpus.brought import look_at
from data.corpus.builtin import plan_speech
from data.corpus.config import BroughtCorpus
from data.corpus.validate import Checked
from data.manifest import Utterance
from data.quarantine import quarantine_row

_SECONDS_PER_WORD = 0.4  # of espeak-ng at the rates drawn; a plan may be rough


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
    lengths_s = [_SECONDS_PER_WORD * len(spoken.text.split()) for spoken in planned] + clips * [music.duration_s]
    return [
        *(f"{name:<18}{count} utterances" for name, count in counts.items()),
        f"total             {len(lengths_s)} utterances, about {sum(lengths_s) / 3600:.1f} h, "
        f"{len({spoken.voice for spoken in planned})} speakers, {config.sample_rate} Hz",
        f"lengths           about {_lengths(lengths_s)}",
    ]


def plan_brought(corpus: BroughtCorpus, max_duration_s: float) -> list[str]:
    """The lines of a dry run of a brought corpus: its listing and its audio's headers are read, nothing is written.

    Utterances longer than `max_duration_s` are pointed out, where nothing cuts them.
    """
    adapter = adapter_class(corpus.kind)
    looked = look_at(corpus)
    summary = summarize(looked.utterances, len(looked.quarantine))
    rates = Counter(fact.sample_rate for fact in looked.facts if fact.sample_rate)
    warnings = [*looked.warnings(), *_too_long(looked, math.inf if corpus.segmentation else max_duration_s)]
    return [
        f"corpus            {adapter.title}; licence: {adapter.licence}",
        *(
            f"{name:<18}{entry['utterances']} utterances, {entry['hours']:.2f} h"
            for name, entry in summary["parts"].items()
        ),
        f"total             {summary['utterances']} utterances, {summary['hours']:.2f} h, "
        f"{len(summary['speakers'])} speakers, {_rates(rates)}",
        f"lengths           {_lengths([utterance.duration for utterance in looked.utterances])}",
        f"texts             {_texts(looked.utterances)}",
        f"quarantined       {summary['quarantined']} rows",
        *problem_lines(looked.quarantine),
        *problem_lines(warnings),
    ]


def _too_long(looked: Checked, max_duration_s: float) -> list[dict[str, Any]]:
    """What tokenize_speech would keep out."""
    detail = "{:.1f} s; tokenize.max_duration_s={:g} keeps it out"
    return [
        quarantine_row(utterance, "too_long", detail.format(utterance.duration, max_duration_s))
        for utterance in looked.utterances
        if (utterance.duration or 0.0) > max_duration_s
    ]


def _rates(rates: Counter[int]) -> str:
    if len(rates) < 2:
        return next((f"{rate} Hz" for rate in rates), "rates unknown")
    return ", ".join(f"{rate} Hz ({count})" for rate, count in sorted(rates.items()))


def _lengths(durations_s: Sequence[float | None]) -> str:
    known = [duration_s for duration_s in durations_s if duration_s is not None]
    unknown = f", {len(durations_s) - len(known)} unknown" if len(known) < len(durations_s) else ""
    if not known:
        return "unknown"
    return f"{min(known):.2f} s min, {median(known):.2f} s median, {max(known):.2f} s max{unknown}"


def _texts(utterances: Sequence[Utterance]) -> str:
    texts = sum(utterance.text is not None for utterance in utterances)
    captions = sum(utterance.caption is not None for utterance in utterances)
    others = sorted({name for utterance in utterances for name in utterance.extra})
    more = f", {captions} captions" if captions else ""
    return f"{texts} of {len(utterances)} utterances{more}" + (f"; other fields: {', '.join(others)}" if others else "")


def problem_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line per reason: how often, and an example."""
    first = {row["reason"]: row for row in reversed(rows)}
    counts = Counter(row["reason"] for row in rows)
    return [
        f"  {reason:<20}{count}, e.g. {first[reason]['id']}: {first[reason]['detail']}"
        for reason, count in counts.most_common()
    ]
