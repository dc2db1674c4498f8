"""SPIRIT LM's parallel pairs: recognition or synthesis, told by the marker before the second modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from data.grammar.automaton import continuation_of
from data.grammar.base import Grammar, RecordLike, Segment
from data.grammar.pattern import Pattern
from data.grammar.reading import enabled, read_any
from data.grammar.sequence_format import Loss, SequenceFormat
from data.grammar.spelling import Part, PartsGrammar, Reader, Speller


class SpiritLmPairs(SequenceFormat):
    """SPIRIT LM's pairs: the second modality's marker says which task it is."""

    PATTERNS: ClassVar = ("asr", "tts")
    kind: Literal["spiritlm_pairs"] = "spiritlm_pairs"
    asr: str = "[Speech] {unit} | [ASR] {text}"
    tts: str = "[Text] {text} | [TTS] {unit}"
    asr_probability: float = Field(0.5, ge=0, le=1, description="chance of asr; 1 or 0 makes a task of one direction")
    loss: Loss = "all"
    deduplicate: bool = True
    spelling: dict[str, str] = Field({"unit": "[Hu{}]"}, description="as SequenceFormat.spelling")

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        return Pairs(self, speller, rates)


class Pairs(PartsGrammar):
    """`spiritlm_pairs`: the direction is drawn at every visit."""

    def __init__(self, config: SpiritLmPairs, speller: Speller, rates: Mapping[str, float]) -> None:
        super().__init__(speller)
        self._config = config
        where = f"grammar.formats.{self.name}"
        self._asr = Pattern(f"{where}.asr", config.asr, speller, config.deduplicate)
        self._tts = Pattern(f"{where}.tts", config.tts, speller, config.deduplicate)
        self._used = enabled([(self._asr, config.asr_probability), (self._tts, 1 - config.asr_probability)])
        steps = [pattern.steps() for pattern in self._used]
        self.continuation = continuation_of(steps, speller.vocabulary.padded_size)

    def accepts(self, record: RecordLike) -> bool:
        """Whether the record has both text and units, whatever is drawn."""
        return all(pattern.has(record) for pattern in self._used)

    def _wants(self) -> str:
        return "text and units"

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        pattern = self._asr if rng.random() < self._config.asr_probability else self._tts
        return pattern.parts(record, trained=self._config.loss)

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of a sequence of either direction, whole or cut short."""
        reader = Reader(self._speller, ids)
        segments = read_any(reader, self._used)
        return segments if reader.done else reader.refuse("the end")

    def prompt(self, record: RecordLike) -> np.ndarray:
        """The first direction whose input the record has, without its output."""
        pattern = next((p for p in self._used if p.has(record, p.prompt_slots)), self._used[0])
        return self._speller.tokens(pattern.prompt_parts(record))[0]
