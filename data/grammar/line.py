"""Grammars of a single pattern, the same at every visit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.grammar.automaton import continuation_of
from data.grammar.base import RecordLike, Segment
from data.grammar.layout import Layout
from data.grammar.pattern import Pattern
from data.grammar.spelling import Part, PartsGrammar, Reader, Speller


class LineGrammar(PartsGrammar):
    """One pattern; what follows its bar is trained on."""

    draws = False

    def __init__(self, pattern: str, speller: Speller, deduplicate: bool) -> None:
        super().__init__(speller)
        self._pattern = Pattern(f"grammar.formats.{self.name}", pattern, speller, deduplicate)
        self.splittable = not self._pattern.prompt_slots
        self.continuation = continuation_of([self._pattern.steps()], speller.vocabulary.padded_size)

    @property
    def slots(self) -> tuple[str, ...]:
        """What the pattern shows of a record."""
        return self._pattern.slots

    @property
    def layout(self) -> Layout | None:
        """Its pieces, where the pattern shows what is stored as it is stored."""
        return self._pattern.layout()

    def accepts(self, record: RecordLike) -> bool:
        """Whether every slot has something to show."""
        return self._pattern.has(record)

    def _wants(self) -> str:
        return f"one of {list(self.slots)}"

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        return self._pattern.parts(record, trained="responses")

    def dropped_codes(self, record: RecordLike) -> int:
        """Codes that make no whole frame and are left out."""
        return self._pattern.dropped_codes(record)

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of a sequence, whole or cut short."""
        reader = Reader(self._speller, ids)
        segments = self._pattern.read(reader)
        return segments if reader.done else reader.refuse("the end")

    def prompt(self, record: RecordLike) -> np.ndarray:
        """What stands before the bar; slots that the record lacks stay empty."""
        return self._speller.tokens(self._pattern.prompt_parts(record))[0]
