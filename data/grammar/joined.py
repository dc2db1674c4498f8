"""Several records joined to one: single pairs as a dialogue of many turns, up to a number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

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


def join_records(
    records: Iterable[Any], longest_tokens: Callable[[RecordLike], int], max_tokens: int
) -> Iterator[JoinedRecord]:
    """Records in their order, as many together as have `max_tokens` at most, whatever is drawn for them.

    `longest_tokens` is a grammar's bound of a record's length; a record that is longer stands alone.
    """
    waiting: list[Any] = []
    room = max_tokens
    for record in records:
        tokens = longest_tokens(record)
        if waiting and tokens > room:
            yield JoinedRecord(tuple(waiting))
            waiting, room = [], max_tokens
        waiting.append(record)
        room -= tokens
    if waiting:
        yield JoinedRecord(tuple(waiting))


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


def joined_for(grammar: Any, records: Iterable[Any], max_tokens: int) -> list[JoinedRecord]:
    """What a grammar is trained on in place of single `records`: these, which it accepts, joined in their order.

    Empty for one that joins none.
    """
    if not isinstance(grammar, JoiningGrammar) or not grammar.joins:
        return []
    return list(join_records(records, grammar.longest_tokens, max_tokens))
