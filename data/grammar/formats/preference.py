"""A prompt with two answers, one chosen and one rejected: what preference objectives learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from data.grammar.automaton import continuation_of
from data.grammar.base import Grammar, RecordLike, Rendered
from data.grammar.line import LineGrammar
from data.grammar.pattern import Pattern
from data.grammar.sequence_format import SLOT, SequenceFormat
from data.grammar.spelling import Part, Speller, prompted


class Preference(SequenceFormat):
    """A prompt with a chosen and a rejected answer: `response` and `rejected` of a record."""

    PATTERNS: ClassVar = ("prompt", "answer", "separator")
    kind: Literal["preference"] = "preference"
    prompt: str = "[Text] {text} [Speech]"
    answer: str = Field("{unit} [eos]", description="pattern of an answer; slots are those of the answering record")
    separator: str = Field("[rejected]", description="marker between the chosen and the rejected answer")
    deduplicate: bool = False
    spelling: dict[str, str] = Field({"unit": "<Un{}>"}, description="as SequenceFormat.spelling")

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        return PreferenceGrammar(self, speller, rates)


class PreferenceGrammar(LineGrammar):
    """`preference`: prompt, chosen answer, a marker, rejected answer as one document, of which the chosen answer alone
    is trained on. `pair` gives the two sequences that an objective such as DPO compares. Generated is one answer."""

    def __init__(self, config: Preference, speller: Speller, rates: Mapping[str, float]) -> None:
        chosen, rejected = (SLOT.sub(rf"{{{link}.\1}}", config.answer) for link in ("response", "rejected"))
        super().__init__(f"{config.prompt} | {chosen} {config.separator} {rejected}", speller, config.deduplicate)
        where = f"grammar.formats.{self.name}"
        self._chosen, self._rejected = (
            Pattern(where, f"{config.prompt} | {answer}", speller, config.deduplicate) for answer in (chosen, rejected)
        )
        self.continuation = continuation_of([self._chosen.steps()], speller.vocabulary.padded_size)

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        parts = super()._parts(record, rng)
        chosen = len(self._chosen.items)
        return [*parts[:chosen], *prompted(parts[chosen:])]

    def pair(self, record: RecordLike) -> tuple[Rendered, Rendered]:
        """Prompt and chosen answer, prompt and rejected answer; the answers are the targets."""
        chosen, rejected = (
            self._speller.rendered(pattern.parts(record, trained="responses"))
            for pattern in (self._chosen, self._rejected)
        )
        return chosen, rejected
