"""The crop curriculum: early visits may show a few consecutive words of an utterance instead of the whole.

Short pairs of words and units teach the alignment sooner than whole utterances do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from data.durations import frames_of_codes
from data.grammar.base import Grammar
from data.mixture import draw_bytes
from data.store import Record, StreamInfo
from data.timing import frame_span, frames_to_seconds

MAX_WORDS = 4
Span = tuple[int, int]


@dataclass(frozen=True)
class CropCurriculum:
    """With `probability`, a visit before `end_step` shows 1 to 4 consecutive words of a record with word times."""

    probability: float
    end_step: float
    seed: int
    streams: Mapping[str, StreamInfo]

    def span(self, grammar: Grammar, record: Record, visit: int, step: int) -> Span | None:
        """Words [start, stop) that this visit shows; None for the whole record. Whether and which depends on
        (seed, source, id, visit) alone, where the source is the grammar's name."""
        if step >= self.end_step or not self.probability or not grammar.croppable or not can_crop(record):
            return None
        draws = np.frombuffer(draw_bytes(self.seed, f"crop {grammar.name}", record.id, visit), dtype=np.uint64).tolist()
        if draws[0] >= self.probability * 2**64:
            return None
        num_words = len(record.words or ())
        length = 1 + draws[1] % min(MAX_WORDS, num_words)
        start = draws[2] % (num_words - length + 1)
        return start, start + length

    def crop(self, record: Record, span: Span | None) -> Record:
        """The record, cut to a span that `span` gave."""
        return record if span is None else crop_record(record, *span, self.streams)


def can_crop(record: Record) -> bool:
    """Whether a record has words with times, text and streams, and more than one word."""
    return bool(record.text and record.streams and record.words and len(record.words) > 1)


def crop_record(record: Record, start_word: int, stop_word: int, streams: Mapping[str, StreamInfo]) -> Record:
    """The words [start_word, stop_word) of a record: text, word times from the new start, duration, codes.

    Every stream is cut at the frames nearest to the words' times (never to nothing). The answer is dropped.
    """
    words = (record.words or ())[start_word:stop_word]
    start_s, end_s = words[0][1], words[-1][2]
    codes, durations = {}, {}
    for name in record.streams:
        codes[name], kept = _cut(record, name, start_s, end_s, streams[name])
        if kept is not None:
            durations[name] = kept
    return replace(
        record,
        text=" ".join(word for word, _, _ in words),
        words=tuple((word, max(0.0, left - start_s), max(0.0, right - start_s)) for word, left, right in words),
        duration_s=_duration_s(codes, durations, streams) or end_s - start_s,
        streams=codes,
        durations=durations,
        response=None,
    )


def _cut(
    record: Record, name: str, start_s: float, end_s: float, info: StreamInfo
) -> tuple[np.ndarray, np.ndarray | None]:
    """Codes of a time span, and their durations where the stream is deduplicated."""
    codes, runs = record.streams[name], record.durations.get(name)
    if runs is None:
        start, end = frame_span(start_s, end_s, info.frame_rate_hz, len(codes) // info.num_codebooks)
        return codes[start * info.num_codebooks : end * info.num_codebooks], None
    frames = frames_of_codes(runs)
    ends = np.cumsum(frames)
    start, end = frame_span(start_s, end_s, info.frame_rate_hz, int(ends[-1]) if len(ends) else 0)
    kept = np.minimum(ends, end) - np.maximum(ends - frames, start)
    cut_codes = codes.reshape(-1, info.num_codebooks)[kept > 0].reshape(-1)
    if (runs < 0).any():  # a code of several units stays whole
        return cut_codes, runs[(kept > 0)[np.cumsum(runs > 0) - 1]]
    return cut_codes, kept[kept > 0].astype(runs.dtype)


def _duration_s(
    codes: Mapping[str, np.ndarray], durations: Mapping[str, np.ndarray], streams: Mapping[str, StreamInfo]
) -> float:
    """Seconds that the first stream's frames span."""
    for name, values in codes.items():
        runs = durations.get(name)
        frames = len(values) // streams[name].num_codebooks if runs is None else int(frames_of_codes(runs).sum())
        return frames_to_seconds(frames, streams[name].frame_rate_hz)
    return 0.0
