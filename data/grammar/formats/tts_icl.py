"""Zero-shot voices by in-context learning: the prompt's text and units, then a text whose units follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from data.errors import InputError
from data.grammar.base import Grammar, RecordLike
from data.grammar.line import LineGrammar
from data.grammar.runs import codes_and_frames, cut, shown_words, word_bounds
from data.grammar.sequence_format import SequenceFormat
from data.grammar.spelling import Part, Speller
from data.store import Record


class TtsIcl(SequenceFormat):
    """Zero-shot voices by in-context learning: a prompt's text and units, a text, and its units in the same voice."""

    PATTERNS: ClassVar = ("pattern",)
    kind: Literal["tts_icl"] = "tts_icl"
    pattern: str = "[tts] {text} [speech] {unit} [text] {response.text} | [speech] {response.unit} [eos]"
    pairs: Literal["words", "response"] = Field(
        "words",
        description="words: a record with word times is cut in two at a drawn word; response: the record is the "
        "prompt, its response the target",
    )
    prompt_s: float = Field(3.0, gt=0, description="words: the prompt is at most so long, but one word at least")
    unit: str = Field("unit", description="stream whose frames word times are cut at")
    deduplicate: bool = False

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        return TtsIclGrammar(self, speller, rates)


class TtsIclGrammar(LineGrammar):
    """`tts_icl`: one record cut in two at a drawn word, or a record and its response."""

    def __init__(self, config: TtsIcl, speller: Speller, rates: Mapping[str, float]) -> None:
        super().__init__(config.pattern, speller, config.deduplicate)
        self._config = config
        self.draws = config.pairs == "words"
        self._books = len(speller.vocabulary.codebooks(config.unit))
        if self.draws and config.unit not in rates:
            raise InputError(
                f"grammar.formats.{self.name} cuts {config.unit!r} by time and its frame rate is unknown: "
                f"give frame_rates_hz: {{{config.unit}: …}}"
            )
        self._rate = rates.get(config.unit, 1.0)

    def accepts(self, record: RecordLike) -> bool:
        """Whether there are a prompt and a target, both with text and units."""
        if self._config.pairs == "response":
            return self._pattern.has(record)
        return bool(self._cuts(record))

    def _wants(self) -> str:
        if self._config.pairs == "response":
            return "text and units of itself and of its response"
        return "units and at least two words with times"

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        if self._config.pairs == "words":
            cuts = self._cuts(record)
            record = self._cut(record, cuts[int(rng.integers(len(cuts)))])
        return super()._parts(record, rng)

    def _cuts(self, record: RecordLike) -> list[int]:
        """Words that a target may begin with: the prompt before it is short enough, or a single word."""
        words = getattr(record, "words", None) or ()
        texts = shown_words(record)
        if len(words) < 2:
            return []
        bounds = word_bounds(words, self._frames(record), self._rate)
        return [
            index
            for index in range(1, len(words))
            if (index == 1 or words[index][1] <= self._config.prompt_s)
            and 0 < bounds[index] < bounds[-1]
            and " ".join(texts[:index]).strip()
            and " ".join(texts[index:]).strip()
        ]

    def _frames(self, record: RecordLike) -> int:
        return int(codes_and_frames(record, self._config.unit, False)[1].sum()) // self._books

    def _cut(self, record: RecordLike, word: int) -> Record:
        """The words before `word`, with those from it on as the response."""
        texts = shown_words(record)
        bound = word_bounds(record.words, self._frames(record), self._rate)[word]  # type: ignore[attr-defined]
        head, tail = (0, bound * self._books), (bound * self._books, self._frames(record) * self._books)
        target = Record("", text=" ".join(texts[word:]), streams={self._config.unit: self._span(record, tail)})
        prompt = Record("", text=" ".join(texts[:word]), streams={self._config.unit: self._span(record, head)})
        return replace(prompt, response=target)

    def _span(self, record: RecordLike, span: tuple[int, int]) -> np.ndarray:
        return cut(*codes_and_frames(record, self._config.unit, False), span, False)[0]
