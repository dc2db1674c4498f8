"""AnyGPT's pre-training sequences: any kind of audio to text, and text to any kind of audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from data.errors import InputError
from data.frozen import Frozen
from data.grammar.automaton import continuation_of
from data.grammar.base import Grammar, RecordLike, Segment
from data.grammar.pattern import Pattern, instruction_sets
from data.grammar.reading import enabled, read_any
from data.grammar.sequence_format import Instructed
from data.grammar.spelling import Part, PartsGrammar, Reader, Speller


class Modality(Frozen):
    """What AnyGPT knows of one kind of audio."""

    text: Literal["text", "caption"] = Field(description="the record's field that puts it into words")
    x: str = Field(description="pattern of its codes")
    to_text: str = Field(description="instruction set of X -> text")
    from_text: str = Field(description="instruction set of text -> X")


class AnyGpt(Instructed):
    """AnyGPT (Zhan et al. 2024): X -> text and text -> X. The first modality that a record has is shown."""

    PATTERNS: ClassVar = ("x_to_text", "text_to_x", "modalities")
    kind: Literal["anygpt"] = "anygpt"
    x_to_text: str = "[Human]: {instruction}. {x}<eoh> [MMGPT]: | {text}<eos>"  # instructions carry no full stop
    text_to_x: str = "[Human]: {instruction}. This is input: {text}<eoh> [MMGPT]: | {x}<eos>"
    x_to_text_probability: float = Field(0.5, ge=0, le=1, description="chance of X -> text")
    modalities: dict[str, Modality] = Field(
        {
            "semantic": Modality(text="text", x="<sosp>{semantic}<eosp>", to_text="asr", from_text="tts"),
            "unit": Modality(text="text", x="<sosp>{unit}<eosp>", to_text="asr", from_text="tts"),
            "music": Modality(
                text="caption", x="<somu>{music}<eomu>", to_text="music_caption", from_text="text_to_music"
            ),
        },
        description="stream -> how it is shown; those that the vocabulary lacks are left out",
    )
    deduplicate: bool = False
    spelling: dict[str, str] = Field(
        {"semantic": "<🗣️{}>", "unit": "<🗣️{}>", "music": "<🎶{}>"}, description="as SequenceFormat.spelling"
    )

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        return AnyGptGrammar(self, speller, rates)


class AnyGptGrammar(PartsGrammar):
    """`anygpt`: codes of several codebooks are frame-major, each codebook with ids of its own.

    Codes of a ragged last frame are dropped; `dropped_codes` counts them.
    """

    def __init__(self, config: AnyGpt, speller: Speller, rates: Mapping[str, float]) -> None:
        super().__init__(speller)
        self._config = config
        known = speller.vocabulary.streams
        modalities = {stream: modality for stream, modality in config.modalities.items() if stream in known}
        if not modalities:
            raise InputError(
                f"grammar.formats.{self.name} shows {sorted(config.modalities)}, the vocabulary has {list(known)}: "
                "name one of them in modalities"
            )
        self._modalities = {stream: self._patterns(stream, modality) for stream, modality in modalities.items()}
        steps = [pattern.steps() for pattern in self._used]
        self.continuation = continuation_of(list(dict.fromkeys(steps)), speller.vocabulary.padded_size)

    def _patterns(self, stream: str, modality: Modality) -> tuple[Pattern, Pattern]:
        """X -> text and text -> X of one modality."""
        made = []
        for field, instructions in (("x_to_text", modality.to_text), ("text_to_x", modality.from_text)):
            line = getattr(self._config, field).replace("{x}", modality.x).replace("{text}", f"{{{modality.text}}}")
            where = f"grammar.formats.{self.name}.{field} ({stream})"
            names = instruction_sets(self._config.instructions, instructions)
            made.append(Pattern(where, line, self._speller, self._config.deduplicate, names))
        return made[0], made[1]

    @property
    def _used(self) -> list[Pattern]:
        chance = self._config.x_to_text_probability
        return [
            pattern
            for both in self._modalities.values()
            for pattern in enabled([(both[0], chance), (both[1], 1 - chance)])
        ]

    def _shown(self, record: RecordLike) -> tuple[Pattern, Pattern] | None:
        """The patterns of the first modality that the record has with its text."""
        return next((both for both in self._modalities.values() if both[0].has(record)), None)

    def accepts(self, record: RecordLike) -> bool:
        """Whether the record has codes of a modality, and its text."""
        return self._shown(record) is not None

    def _wants(self) -> str:
        return f"codes of one of {list(self._modalities)} with text (speech) or caption (music)"

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        both = self._shown(record)
        assert both is not None
        pattern = both[0] if rng.random() < self._config.x_to_text_probability else both[1]
        parts = pattern.parts(record, pattern.draw(rng), self._config.loss)
        prefix = [self._speller.words(self._config.prefix, target=False)] if self._config.prefix.strip() else []
        return [*prefix, *parts]

    def dropped_codes(self, record: RecordLike) -> int:
        """Codes of the modality shown that make no whole frame and are left out."""
        both = self._shown(record)
        return both[0].dropped_codes(record) if both else 0

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of a sequence of any modality and direction, whole or cut short."""
        reader = Reader(self._speller, ids)
        prefix = self._speller.text(self._config.prefix)[: len(reader.ids)]
        if len(prefix) and (reader.ids[: len(prefix)] == prefix).all():
            reader.position = len(prefix)
        segments = read_any(reader, self._used) if not reader.done else []
        return segments if reader.done else reader.refuse("the end")

    def prompt(self, record: RecordLike) -> np.ndarray:
        """The first direction whose input the record has, up to what is generated."""
        pattern = next((p for p in self._used if p.has(record, p.prompt_slots)), self._used[0])
        prefix = [self._speller.words(self._config.prefix, target=False)] if self._config.prefix.strip() else []
        return self._speller.tokens([*prefix, *pattern.prompt_parts(record)])[0]
