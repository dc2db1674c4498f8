"""Reading a line that may be one of several patterns."""

from __future__ import annotations

from collections.abc import Sequence

from data.errors import InputError
from data.grammar.base import Segment
from data.grammar.pattern import Pattern
from data.grammar.spelling import Reader


def enabled(patterns: Sequence[tuple[Pattern, float]]) -> list[Pattern]:
    """The patterns whose chance is above 0. Raises InputError where none is."""
    used = [pattern for pattern, chance in patterns if chance > 0]
    if not used:
        raise InputError("no form has a chance above 0: give one of them a weight")
    return used


def read_any(reader: Reader, patterns: Sequence[Pattern]) -> list[Segment]:
    """The segments by the pattern that fits. Raises the error of the one that fits furthest.

    A line that was cut short may fit several: it is read by the one that says most of it, the first of equals. What
    was generated may ask in one form and answer in another: that is read, too.
    """
    start = reader.position
    try:
        return _read_best(reader, patterns)
    except InputError:
        failed = reader.position
        mixed = [asked.answered_by(other) for asked in patterns for other in patterns if other is not asked]
        reader.position = start
        try:
            return _read_best(reader, mixed)
        except InputError:
            reader.position = failed
        raise


def _read_best(reader: Reader, patterns: Sequence[Pattern]) -> list[Segment]:
    start = end = reader.position
    best: list[Segment] | None = None
    furthest: tuple[int, InputError] | None = None
    for pattern in patterns:
        reader.position = start
        try:
            segments = pattern.read(reader)
        except InputError as error:
            if furthest is None or reader.position > furthest[0]:
                furthest = reader.position, error
            continue
        if best is None or reader.position > end:
            best, end = segments, reader.position
    if best is None:
        raise furthest[1] if furthest else InputError("there is no pattern to read by")
    reader.position = end
    return best
