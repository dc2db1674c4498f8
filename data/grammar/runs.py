"""A record's codes as grammars show them: runs of equal codes as one, cut at times, and expanded again.

A store holds codes whole, or deduplicated with durations: both show the same.

Shapes: T = frames, L = codes shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.durations import frames_of_codes
from data.grammar.base import RecordLike
from data.timing import seconds_to_frames

Span = tuple[int, int]


def codes_and_frames(record: RecordLike, stream: str, deduplicate: bool) -> tuple[np.ndarray, np.ndarray]:
    """Codes of a stream of one codebook as shown, and how many frames (int64) each stands for; both may be empty."""
    codes = np.asarray(record.streams.get(stream, ()), dtype=np.int16).reshape(-1)
    stored = getattr(record, "durations", {}).get(stream)
    frames = np.ones(len(codes), dtype=np.int64) if stored is None else frames_of_codes(stored)
    return _merged(codes, frames) if deduplicate else (codes, frames)


def shown_codes(record: RecordLike, stream: str, deduplicate: bool) -> np.ndarray:
    """Codes of a stream as shown, int16, flat. Only a stream of one codebook can be deduplicated."""
    codes = np.asarray(record.streams.get(stream, ()), dtype=np.int16).reshape(-1)
    if not deduplicate or not len(codes):
        return codes
    return codes[np.append(True, codes[1:] != codes[:-1])]


def cut(codes: np.ndarray, frames: np.ndarray, span: Span, deduplicate: bool) -> tuple[np.ndarray, np.ndarray]:
    """The codes that frames [start, end) of a stream show, and how many of these frames each stands for."""
    ends = np.cumsum(frames)
    kept = np.minimum(ends, span[1]) - np.maximum(ends - frames, span[0])
    inside = kept > 0
    codes, frames = codes[inside], kept[inside]
    return _merged(codes, frames) if deduplicate else (codes, frames)


def expand_shown(
    content: Sequence[int], record: RecordLike, stream: str, deduplicate: bool = True, span: Span | None = None
) -> np.ndarray:
    """The frames (T,) of a stream that a segment's codes stand for, by the record's durations. Exact.

    `span` are the frames that a segment shows where it shows but a part. Raises ValueError for codes that are not
    the record's.
    """
    codes, frames = codes_and_frames(record, stream, deduplicate)
    if span is not None:
        codes, frames = cut(codes, frames, span, deduplicate)
    if codes.tolist() != [int(code) for code in content]:
        raise ValueError(
            f"{len(content)} codes {list(content)[:8]} … are not what stream {stream!r} of the record shows"
        )
    return np.repeat(codes, frames)


def word_bounds(words: Sequence[tuple[str, float, float]], num_frames: int, frame_rate_hz: float) -> list[int]:
    """Frames that words begin at: word k has [bounds[k], bounds[k + 1]).

    Each pause belongs to the word before it and what precedes the first word to that one, so that no frame is lost.
    """
    starts = [seconds_to_frames(start_s, frame_rate_hz) for _, start_s, _ in words[1:]]
    bounds = np.maximum.accumulate(np.clip(np.array([0, *starts], dtype=np.int64), 0, num_frames))
    return [*bounds.tolist(), num_frames]


def shown_words(record: RecordLike) -> list[str]:
    """The words of a record with word times: its text's own where they are as many, else those that were timed."""
    timed = [str(word) for word, _, _ in getattr(record, "words", None) or ()]
    written = (record.text or "").split()
    return written if len(written) == len(timed) else timed


def _merged(codes: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of equal code as one, with the sum of their frames."""
    if not len(codes):
        return codes, frames
    starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
    return codes[starts], np.add.reduceat(frames, starts)
