"""AnyGPT's dialogues: turns of two or more parties, each written, spoken or with music."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from data.frozen import Frozen
from data.grammar.automaton import continuation_of
from data.grammar.base import Grammar, RecordLike, Segment
from data.grammar.continuation import Step
from data.grammar.pattern import Pattern
from data.grammar.reading import read_any
from data.grammar.sequence_format import Loss, SequenceFormat
from data.grammar.spelling import Part, PartsGrammar, Reader, Speller, prompted


class Party(Frozen):
    """One side of a dialogue."""

    name: str = Field(description="what a turn's `party` says")
    marker: str = Field(description="leads its turns")
    end: str = Field(description="ends its turns")
    answers: bool = Field(False, description="whether its turns are what the model learns to say")


class AnyGptChat(SequenceFormat):
    """AnyGPT's dialogues: a record, its response, that one's response …; turns are written, spoken or carry music.

    An answer to a spoken turn first writes down what was said.
    """

    PATTERNS: ClassVar = ("parties", "transcript_marker", "answer_marker", "modalities")
    kind: Literal["anygpt_chat"] = "anygpt_chat"
    parties: tuple[Party, ...] = (
        Party(name="human", marker="[Human]", end="<eoh>"),
        Party(name="anygpt", marker="[AnyGPT]", end="<eom>", answers=True),
    )
    transcript_marker: str = "<-Ins->"
    answer_marker: str = "<-Res->"
    modalities: dict[str, str] = Field(
        {"semantic": "<sosp>{semantic}<eosp>", "unit": "<sosp>{unit}<eosp>", "music": "<somu>{music}<eomu>"},
        description="stream -> pattern of its codes; the first that a turn has is shown",
    )
    spoken: tuple[str, ...] = Field(
        ("semantic", "unit"), description="streams that speak a turn's text: an answer writes it down first"
    )
    loss: Loss = "responses"
    deduplicate: bool = False
    spelling: dict[str, str] = Field(
        {"semantic": "<🗣️{}>", "unit": "<🗣️{}>", "music": "<🎶{}>"}, description="as SequenceFormat.spelling"
    )

    @field_validator("parties")
    @classmethod
    def _two_at_least(cls, parties: tuple[Party, ...]) -> tuple[Party, ...]:
        names = [party.name for party in parties]
        markers = [party.marker for party in parties]
        if len(parties) < 2 or len(set(names)) < len(names) or len(set(markers)) < len(markers):
            raise ValueError(
                f"parties {names} with markers {markers}: give at least two, with names and markers of their own"
            )
        if not any(party.answers for party in parties):
            raise ValueError(f"none of the parties {names} has answers: true: say which one the model speaks for")
        return parties

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        return AnyGptChatGrammar(self, speller, rates)


class AnyGptChatGrammar(PartsGrammar):
    """`anygpt_chat`: a record is the first turn, its response the next one, and so on.

    Turns go round among the parties, unless `extra["party"]` names one; records with `extra["turn"]` above 0 begin no
    dialogue. An answer to a spoken turn is `<-Ins->` what was said `<-Res->` the answer.
    """

    draws = False

    def __init__(self, config: AnyGptChat, speller: Speller, rates: Mapping[str, float]) -> None:
        super().__init__(speller)
        self._config = config
        where = f"grammar.formats.{self.name}.modalities"
        known = [stream for stream in config.modalities if stream in speller.vocabulary.streams]
        self._modalities = {
            stream: Pattern(f"{where}.{stream}", config.modalities[stream], speller, config.deduplicate)
            for stream in known
        }
        self._transcript = speller.marker(config.transcript_marker)
        self._answer = speller.marker(config.answer_marker)
        self._colon = speller.words(":")
        self._markers = {int(speller.marker(party.marker).value[0]): party for party in config.parties}
        self._ends = {int(speller.marker(party.end).value[0]) for party in config.parties}
        self.continuation = continuation_of(list(self._answers()), speller.vocabulary.padded_size)

    def accepts(self, record: RecordLike) -> bool:
        """Whether a dialogue begins here: two turns or more, each with something to show, one of them an answer."""
        if getattr(record, "extra", {}).get("turn", 0):
            return False
        turns = list(self._turns(record))
        known = all(party is not None and (_text(turn) or self._codes(turn)) for turn, party in turns)
        return len(turns) > 1 and known and any(party.answers for _, party in turns if party)

    def _wants(self) -> str:
        return f"turns (a record, its response, …) of the parties {[party.name for party in self._config.parties]}"

    def _turns(self, record: RecordLike) -> Iterator[tuple[Any, Party | None]]:
        """Turns with their parties; None for a party that the recipe does not name."""
        parties = self._config.parties
        by_name = {party.name: party for party in parties}
        turn: Any = record
        index = 0
        while turn is not None:
            name = getattr(turn, "extra", {}).get("party")
            yield turn, by_name.get(name) if name is not None else parties[index % len(parties)]
            turn = getattr(turn, "response", None)
            index += 1

    def dropped_codes(self, record: RecordLike) -> int:
        """Codes of all turns that make no whole frame and are left out."""
        shown = [(turn, self._codes(turn)) for turn, _ in self._turns(record)]
        return sum(self._modalities[stream].dropped_codes(turn) for turn, stream in shown if stream)

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        turns = list(self._turns(record))
        return [part for index in range(len(turns)) for part in self._turn(turns, index)]

    def _turn(self, turns: Sequence[tuple[Any, Party | None]], index: int) -> list[Part]:
        turn, party = turns[index]
        assert party is not None
        trained = self._config.loss == "all" or party.answers
        opening = self._opening(party, self._config.loss == "all")
        body = [*self._heard(turns, index), *self._said(turn, party, index), self._speller.marker(party.end)]
        return [*opening, *(body if trained else prompted(body))]

    def _opening(self, party: Party, trained: bool) -> list[Part]:
        parts = [self._speller.marker(party.marker), self._colon]
        return parts if trained else prompted(parts)

    def _heard(self, turns: Sequence[tuple[Any, Party | None]], index: int) -> list[Part]:
        """What an answer to a spoken turn begins with."""
        _, party = turns[index]
        if index == 0 or party is None or not party.answers or not self._is_spoken(*turns[index - 1]):
            return []
        heard = _text(turns[index - 1][0])
        return [self._transcript, Part("text", _slot(index - 1, "text"), heard), self._answer] if heard else []

    def _said(self, turn: Any, party: Party, index: int) -> list[Part]:
        """Text and codes of a turn. What is spoken to the model is not written, too."""
        parts = []
        if _text(turn) and not self._is_spoken(turn, party):
            parts.append(Part("text", _slot(index, "text"), _text(turn)))
        stream = self._codes(turn)
        coded = self._modalities[stream].parts(turn) if stream else []
        return [*parts, *(replace(part, slot=_slot(index, part.slot)) if part.slot else part for part in coded)]

    def _is_spoken(self, turn: Any, party: Party | None) -> bool:
        return party is not None and not party.answers and self._codes(turn) in self._config.spoken

    def _codes(self, turn: Any) -> str | None:
        """The stream that a turn shows."""
        return next((stream for stream, pattern in self._modalities.items() if pattern.has(turn)), None)

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of all turns, whole or cut short."""
        reader = Reader(self._speller, ids)
        segments: list[Segment] = []
        index = -1
        while not reader.done:
            token = int(reader.ids[reader.position])
            if token in self._markers:
                index += 1
                reader.position += 1
                segments += self._read_colon_and_text(reader, index)
            elif index < 0:
                reader.refuse(f"one of {[party.marker for party in self._config.parties]}")
            elif reader.skip(int(self._transcript.value[0])):
                segments += reader.segment("text", _slot(index - 1, "text"))
            elif reader.skip(int(self._answer.value[0])):
                segments += reader.segment("text", _slot(index, "text"))
            elif token in self._ends:
                reader.position += 1
            else:
                segments += self._read_codes(reader, index)
        return segments

    def _read_colon_and_text(self, reader: Reader, index: int) -> list[Segment]:
        colon = self._colon.value[: len(reader.ids) - reader.position]
        if (reader.ids[reader.position : reader.position + len(colon)] == colon).all():
            reader.position += len(colon)
        return reader.segment("text", _slot(index, "text"))

    def _read_codes(self, reader: Reader, index: int) -> list[Segment]:
        start = reader.position
        found = read_any(reader, list(self._modalities.values()))
        if reader.position == start:
            reader.refuse("codes or the end of a turn")
        return [replace(segment, slot=_slot(index, segment.slot)) for segment in found]

    def prompt(self, record: RecordLike) -> np.ndarray:
        """All turns but a last one that answers, and the marker of who answers next."""
        turns = [(turn, party or self._config.parties[0]) for turn, party in self._turns(record)]
        answering = next(party for party in self._config.parties if party.answers)
        if len(turns) > 1 and turns[-1][1].answers:
            answering = turns.pop()[1]
        shown = [part for index in range(len(turns)) for part in self._turn(turns, index)]
        return self._speller.tokens(prompted([*shown, *self._opening(answering, False)]))[0]

    def _answers(self) -> Iterator[tuple[Step, ...]]:
        """What an answer may be: a transcript or not, text, and codes of one modality or none."""
        block = self._speller.text_block
        transcript = (self._step(self._transcript), Step("text", (block,), True), self._step(self._answer))
        for party in self._config.parties:
            if not party.answers:
                continue
            end = self._step(self._speller.marker(party.end))
            said = Step("response.text", (block,), True)
            for codes in ((), *(pattern.steps_of_all() for pattern in self._modalities.values())):
                coded = tuple(replace(step, slot=f"response.{step.slot}") if step.slot else step for step in codes)
                yield (*transcript, said, *coded, end)
                yield (said, *coded, end)

    def _step(self, marker: Part) -> Step:
        return Step(
            None, (self._speller.marker_block(self._speller.vocabulary.token_name(int(marker.value[0]))),), False
        )


def _text(turn: Any) -> str:
    return (getattr(turn, "text", None) or "").strip()


def _slot(index: int, field: str) -> str:
    return "response." * index + field
