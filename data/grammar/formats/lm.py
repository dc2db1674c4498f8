"""Language models of one modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from data.grammar.base import Grammar
from data.grammar.line import LineGrammar
from data.grammar.sequence_format import SequenceFormat
from data.grammar.spelling import Speller


class _LanguageModel(SequenceFormat):
    PATTERNS: ClassVar = ("pattern",)
    pattern: str
    deduplicate: bool = Field(False, description="show runs of equal units as one; a store may have done so already")

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        grammar = LineGrammar(self.pattern, speller, self.deduplicate)
        grammar.croppable = not any("." in slot or slot == "caption" for slot in grammar.slots)
        return grammar


class UnitLm(_LanguageModel):
    """A language model of speech units (GSLM, TWIST, Slam)."""

    kind: Literal["unit_lm"] = "unit_lm"
    pattern: str = "[lm] | {unit} [eos]"


class TextLm(_LanguageModel):
    """A language model of text."""

    kind: Literal["text_lm"] = "text_lm"
    pattern: str = "[lm] | {text} [eos]"
