"""SpeechGPT's sequences: cross-modal instructions, and the chain of modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from data.errors import InputError
from data.grammar.automaton import continuation_of
from data.grammar.base import Grammar, RecordLike, Segment
from data.grammar.joined import turns
from data.grammar.pattern import Pattern, instruction_sets
from data.grammar.reading import enabled, read_any
from data.grammar.sequence_format import Instructed
from data.grammar.spelling import Part, PartsGrammar, Reader, Speller


class SpeechGptCrossModal(Instructed):
    """SpeechGPT's cross-modal instructions (Zhang et al. 2023): recognise or speak, pairs joined to many turns."""

    PATTERNS: ClassVar = ("asr", "tts")
    kind: Literal["speechgpt_cross_modal"] = "speechgpt_cross_modal"
    asr: str = "[Human]: {instruction}. This is input: <sosp>{unit}<eosp><eoh>. [SpeechGPT]: | {text}<eos>."
    tts: str = "[Human]: {instruction}. This is input: {text}<eoh>. [SpeechGPT]: | <sosp>{unit}<eosp><eos>."
    asr_probability: float = Field(0.5, ge=0, le=1, description="chance of asr at each turn")
    joins: bool = Field(True, description="whether pairs that training puts into one row are turns of one dialogue")
    spelling: dict[str, str] = Field({"unit": "<{}>"}, description="as SequenceFormat.spelling")

    @model_validator(mode="after")
    def _turns_have_no_prefix(self) -> SpeechGptCrossModal:
        if self.joins and self.prefix.strip():
            raise ValueError(
                f"prefix {self.prefix!r} would stand before every turn of a dialogue: leave it out, or set joins: false"
            )
        return self

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        return CrossModal(self, speller, rates)


_HEARD = "[Human]: This is a spoken instruction: <sosp>{unit}<eosp>."


class SpeechGptChain(Instructed):
    """SpeechGPT's chain of modality: [tq] the question's text, [ta] the answer's text, [ua] the answer's units.

    The released samples lack the leading [tq], their text-to-text form lacks <eoh>, and their trainers never add
    [tq], [ta], [ua] and <eoa> to the vocabulary: here all of them are there.
    """

    PATTERNS: ClassVar = ("forms",)
    kind: Literal["speechgpt_chain_of_modality"] = "speechgpt_chain_of_modality"
    forms: dict[str, str] = Field(
        {
            "s2s": f"{_HEARD} Write down what was said, then an answer, then speak the answer.<eoh>. "
            "[SpeechGPT]: | [tq] {text}; [ta] {response.text}; [ua] <sosp>{response.unit}<eosp><eoa>.",
            "s2t": f"{_HEARD} Write down what was said, then an answer.<eoh>. "
            "[SpeechGPT]: | [tq] {text}; [ta] {response.text}<eoa>.",
            "t2s": "[Human]: {text} Write down an answer, then speak it.<eoh>. "
            "[SpeechGPT]: | [ta] {response.text}; [ua] <sosp>{response.unit}<eosp><eoa>.",
            "t2t": "[Human]: {text}<eoh>. [SpeechGPT]: | [ta] {response.text}<eoa>.",
        },
        description="form -> pattern",
    )
    weights: dict[str, float] = Field(
        {}, description="form -> how often it is drawn; default all alike, a form left out is never drawn"
    )
    prefix: str = "You are SpeechGPT, an assistant that listens, reads, writes and speaks."
    spelling: dict[str, str] = Field({"unit": "<{}>"}, description="as SequenceFormat.spelling")

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        return ChainOfModality(self, speller, rates)


class _Prefixed(PartsGrammar):
    """Lines of a few patterns behind a system prompt, which is never trained on."""

    def __init__(self, config: SpeechGptCrossModal | SpeechGptChain, speller: Speller, used: list[Pattern]) -> None:
        super().__init__(speller)
        self._loss = config.loss
        self._used = used
        self._prefix = [speller.words(config.prefix, target=False)] if config.prefix.strip() else []
        self.continuation = continuation_of([pattern.steps() for pattern in used], speller.vocabulary.padded_size)

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of all turns, whole or cut short."""
        reader = Reader(self._speller, ids)
        for part in self._prefix:
            prefix = self._speller.ids(part)[: len(reader.ids)]
            if (reader.ids[: len(prefix)] == prefix).all():
                reader.position = len(prefix)
        segments: list[Segment] = []
        while not reader.done:
            start = reader.position
            segments += read_any(reader, self._used)
            if reader.position == start:
                reader.refuse("a turn")
        return segments

    def prompt(self, record: RecordLike) -> np.ndarray:
        """The first form whose input the record has, up to what is generated."""
        pattern = next((p for p in self._used if p.has(record, p.prompt_slots)), self._used[0])
        return self._speller.tokens([*self._prefix, *pattern.prompt_parts(record)])[0]


class CrossModal(_Prefixed):
    """`speechgpt_cross_modal`: each turn asks for recognition or synthesis, in words drawn from the instruction set.

    A data.grammar.joined.JoinedRecord has many turns.
    """

    def __init__(self, config: SpeechGptCrossModal, speller: Speller, rates: Mapping[str, float]) -> None:
        where = f"grammar.formats.{speller.task}"
        self._asr_probability = config.asr_probability
        self.joins, self.trains_openings = config.joins, config.loss == "all"
        self._asr, self._tts = (
            Pattern(f"{where}.{name}", text, speller, config.deduplicate, instruction_sets(config.instructions, name))
            for name, text in (("asr", config.asr), ("tts", config.tts))
        )
        used = enabled([(self._asr, config.asr_probability), (self._tts, 1 - config.asr_probability)])
        super().__init__(config, speller, used)

    def accepts(self, record: RecordLike) -> bool:
        """Whether every turn has text and units."""
        return all(pattern.has(turn) for turn in turns(record) for pattern in self._used)

    def _wants(self) -> str:
        return "text and units"

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        parts = list(self._prefix)
        for turn in turns(record):
            pattern = self._asr if rng.random() < self._asr_probability else self._tts
            parts += pattern.parts(turn, pattern.draw(rng), self._loss)
        return parts


class ChainOfModality(_Prefixed):
    """`speechgpt_chain_of_modality`: speech or text asked, speech or text answered, by way of text.

    A form is drawn among those that the record can show.
    """

    def __init__(self, config: SpeechGptChain, speller: Speller, rates: Mapping[str, float]) -> None:
        weights = config.weights or dict.fromkeys(config.forms, 1.0)
        unknown = sorted(set(weights) - set(config.forms))
        if unknown:
            raise InputError(
                f"grammar.formats.{speller.task}.weights names {unknown}: choose from {list(config.forms)}"
            )
        self._forms = [
            (Pattern(f"grammar.formats.{speller.task}.forms.{form}", text, speller, config.deduplicate), weights[form])
            for form, text in config.forms.items()
            if weights.get(form, 0) > 0
        ]
        super().__init__(config, speller, enabled(self._forms))

    def accepts(self, record: RecordLike) -> bool:
        """Whether the record can be shown in one of the forms."""
        return any(pattern.has(record) for pattern in self._used)

    def _wants(self) -> str:
        return "what one of the forms shows: text and, for spoken forms, units of itself and of its response"

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        shown = [(pattern, weight) for pattern, weight in self._forms if pattern.has(record)]
        bounds = np.cumsum([weight for _, weight in shown])
        chosen = int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))
        pattern = shown[min(chosen, len(shown) - 1)][0]
        return [*self._prefix, *pattern.parts(record, trained=self._loss)]
