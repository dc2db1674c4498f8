"""A prompt with two answers, one chosen and one rejected: what preference objectives learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from data.grammar.automaton import continuation_of
from data.grammar.base import RecordLike, Rendered, Segment
from data.grammar.pattern import Pattern
from data.grammar.spelling import Part, PartsGrammar, Reader, Speller
from data.sequence_formats import SLOT, Preference


class PreferenceGrammar(PartsGrammar):
    """`preference`: prompt, chosen answer, a marker, rejected answer as one document; `pair` gives the two sequences
    that an objective such as DPO compares."""

    draws = False

    def __init__(self, config: Preference, speller: Speller, rates: Mapping[str, float]) -> None:
        super().__init__(speller)
        self._separator_id = speller.vocabulary.marker_id(config.separator)
        chosen, rejected = (SLOT.sub(rf"{{{link}.\1}}", config.answer) for link in ("response", "rejected"))
        lines = [
            f"{config.prompt} | {chosen} {config.separator} {rejected}",
            f"{config.prompt} | {chosen}",
            f"{config.prompt} | {rejected}",
        ]
        where = f"grammar.formats.{self.name}"
        self._whole, self._chosen, self._rejected = (
            Pattern(where, line, speller, config.deduplicate) for line in lines
        )
        self.continuation = continuation_of([self._chosen.steps()], speller.vocabulary.padded_size)

    def accepts(self, record: RecordLike) -> bool:
        """Whether the record has the prompt, and a response and a rejected one with an answer each."""
        return self._whole.has(record)

    def _wants(self) -> str:
        return f"one of {list(self._whole.slots)}"

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        parts = self._whole.parts(record, trained="responses")
        return [
            replace(part, target=False) if not part.slot and self._separator_id in part.value else part
            for part in parts
        ]

    def pair(self, record: RecordLike) -> tuple[Rendered, Rendered]:
        """Prompt and chosen answer, prompt and rejected answer; the answers are the targets."""
        chosen, rejected = (
            self._speller.rendered(pattern.parts(record, trained="responses"))
            for pattern in (self._chosen, self._rejected)
        )
        return chosen, rejected

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of a whole document, or of a prompt with the answer generated to it."""
        reader = Reader(self._speller, ids)
        segments = self._whole.read(reader)
        return segments if reader.done else reader.refuse("the end")

    def prompt(self, record: RecordLike) -> np.ndarray:
        """What both answers follow."""
        return self._speller.tokens(self._chosen.prompt_parts(record))[0]
