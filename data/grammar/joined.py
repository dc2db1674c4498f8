"""Several records as one sequence: single pairs as a dialogue of many turns.

Training plans every pair by itself, and joins those of a task that a row happens to hold: the row then begins with
other documents, if any, and the pairs are one document behind them, as long as the row has room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np


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


def turns(record: Any) -> tuple[Any, ...]:
    """The records of a joined one; a single record is a turn of its own."""
    return record.records if isinstance(record, JoinedRecord) else (record,)


@runtime_checkable
class JoiningGrammar(Protocol):
    """A grammar of turns, whose documents in a row are one document where `joins` is true."""

    joins: bool
    trains_openings: bool  # whether the first token of a later turn is a target


def joining(grammar: Any) -> JoiningGrammar | None:
    """The grammar, where its documents are joined."""
    return grammar if isinstance(grammar, JoiningGrammar) and grammar.joins else None
