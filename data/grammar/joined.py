"""Several records joined to one: single pairs as a dialogue of many turns, up to a number of tokens.

Shapes: N = records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np

from data.grammar.base import RecordLike


@dataclass(frozen=True)
class JoinedRecord:
    """Records that a grammar of turns shows one after the other. Other grammars find nothing in it to show."""

    records: tuple[Any, ...]
    text: str | None = None
    speaker: str | None = None
    caption: str | None = None
    streams: Mapping[str, np.ndarray] = field(default_factory=dict)
    response: Any = None
    words: None = None

    @property
    def id(self) -> str:
        """The ids of its records."""
        return "+".join(str(record.id) for record in self.records)


def join_bounds(longest_N: np.ndarray, max_tokens: int) -> np.ndarray:
    """Bounds (int64, one more than there are groups) of records joined in their order: as many together as have
    `max_tokens` at most, whatever is drawn for them.

    `longest_N` bound the records' lengths; a record that is longer than `max_tokens` stands alone.
    """
    ends_N = np.cumsum(longest_N, dtype=np.int64)
    fitting_N = np.searchsorted(ends_N, ends_N - longest_N + max_tokens, side="right")
    nexts_N = np.maximum(fitting_N, np.arange(1, len(ends_N) + 1))
    bounds = [0]
    while bounds[-1] < len(nexts_N):
        bounds.append(nexts_N.item(bounds[-1]))
    return np.array(bounds, dtype=np.int64)


class JoinedRecords(Sequence[JoinedRecord]):
    """Records joined in the order of `members_N` (their indices) within `bounds` as `join_bounds` gives them: each is
    made when asked for."""

    def __init__(self, records: Sequence[Any], members_N: np.ndarray, bounds: np.ndarray) -> None:
        self._records, self._members_N, self._bounds = records, members_N, bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, index: int) -> JoinedRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[JoinedRecord]: ...
    def __getitem__(self, index: int | slice) -> JoinedRecord | list[JoinedRecord]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        start, stop = self._bounds[range(len(self))[index]], self._bounds[range(len(self))[index] + 1]
        return JoinedRecord(tuple(self._records[member] for member in self._members_N[start:stop].tolist()))


def turns(record: Any) -> tuple[Any, ...]:
    """The records of a joined one; a single record is a turn of its own."""
    return record.records if isinstance(record, JoinedRecord) else (record,)


@runtime_checkable
class JoiningGrammar(Protocol):
    """A grammar of turns that is trained on joined records where `joins` is true."""

    joins: bool

    def longest_tokens(self, record: RecordLike) -> int:
        """A bound of a turn's length, whatever is drawn."""

    def accepts(self, record: RecordLike) -> bool:
        """As in Grammar."""


def joining(grammar: Any) -> JoiningGrammar | None:
    """The grammar, where it is trained on joined records."""
    return grammar if isinstance(grammar, JoiningGrammar) and grammar.joins else None
