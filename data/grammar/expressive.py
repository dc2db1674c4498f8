"""Several streams of speech as one sequence in the order of time, and back (SPIRIT LM Expressive).

Shapes: L = tokens of one stream as shown, N = units.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.grammar.base import Segment

MISSING_STYLES = (71, 68, 98)  # what the release falls back on where no style was written


@dataclass(frozen=True)
class Timed:
    """Codes of one stream as shown, how many frames each stands for, and the frames per second."""

    stream: str
    codes: np.ndarray
    frames: np.ndarray
    frame_rate_hz: float

    @property
    def starts_s(self) -> np.ndarray:
        """When each code begins, in seconds: the index of its first frame / rate."""
        return (np.cumsum(self.frames) - self.frames) / self.frame_rate_hz


def merge(streams: Sequence[Timed]) -> list[tuple[str, np.ndarray]]:
    """Runs (stream, codes) in the order of time. At equal times the stream named first comes first: SPIRIT LM's order
    is style, pitch, unit."""
    order = time_order(streams)
    owners = np.repeat(np.arange(len(streams)), [len(timed.codes) for timed in streams])[order]
    codes = np.concatenate([timed.codes for timed in streams])[order]
    if not len(codes):
        return []
    bounds = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(codes)]
    return [(streams[owners[start]].stream, codes[start:stop]) for start, stop in itertools.pairwise(bounds)]


def time_order(streams: Sequence[Timed]) -> np.ndarray:
    """Where each token comes from: indices into all streams' codes, one stream after the other."""
    return np.argsort(np.concatenate([timed.starts_s for timed in streams]), kind="stable")


def split(segments: Sequence[Segment], streams: Sequence[str]) -> dict[str, list[int]]:
    """The codes of each stream as they were shown: the inverse of `merge`."""
    found: dict[str, list[int]] = {stream: [] for stream in streams}
    for segment in segments:
        if segment.kind in found:
            found[segment.kind] += [int(code) for code in segment.content]
    return found


def spoken(
    segments: Sequence[Segment], unit: str = "unit", pitch: str = "pitch", style: str = "style"
) -> tuple[list[int], list[int], list[int]]:
    """Units, and the pitch and style of each (three lists of N), as a vocoder wants them.

    A unit has the pitch and style written last before it; units before the first have the first one. Where no style
    is written at all, it is the first of MISSING_STYLES; without any pitch, code 0.
    """
    units: list[int] = []
    marks: dict[str, list[int | None]] = {pitch: [], style: []}
    last: dict[str, int | None] = {pitch: None, style: None}
    for segment in segments:
        if segment.kind in last:
            last[segment.kind] = int(segment.content[-1])
        elif segment.kind == unit:
            units += [int(code) for code in segment.content]
            for name, seen in marks.items():
                seen += [last[name]] * len(segment.content)
    pitches = _filled(marks[pitch], last[pitch], 0)
    return units, pitches, _filled(marks[style], last[style], MISSING_STYLES[0])


def _filled(codes: Sequence[int | None], last: int | None, missing: int) -> list[int]:
    first = next((code for code in codes if code is not None), missing if last is None else last)
    return [first if code is None else code for code in codes]
