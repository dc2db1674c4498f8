"""Text and audio in turn, a few tokens of each, so that speech can start before the text has ended (GLM-4-Voice)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from data.errors import InputError
from data.grammar.automaton import determinise
from data.grammar.base import Grammar, RecordLike, Rendered, Segment
from data.grammar.continuation import Continuation, Edge, Step
from data.grammar.pattern import Pattern
from data.grammar.sequence_format import SequenceFormat
from data.grammar.spelling import Part, PartsGrammar, Reader, Speller


class Chunked(SequenceFormat):
    """n text tokens, then m audio tokens, over and over, so that speech starts before the text ends (GLM-4-Voice)."""

    PATTERNS: ClassVar = ("prompt", "end")
    kind: Literal["chunked"] = "chunked"
    prompt: str = Field("<|assistant|>", description="pattern of what comes before, e.g. <|user|> {unit} <|assistant|>")
    text: str = Field("text", description="slot of the text, e.g. response.text")
    audio: str = Field("unit", description="slot of the audio, e.g. response.unit")
    text_tokens: int = Field(13, ge=1)
    audio_tokens: int = Field(26, ge=1)
    end: str = "[eos]"
    deduplicate: bool = False
    spelling: dict[str, str] = Field({"unit": "<|audio_{}|>"}, description="as SequenceFormat.spelling")

    def streams(self) -> set[str]:
        """The audio's stream, and those of the prompt."""
        return super().streams() | {self.audio.rpartition(".")[2]}

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        return ChunkedGrammar(self, speller, rates)


class ChunkedGrammar(PartsGrammar):
    """`chunked`: n text tokens, m audio tokens, until both have ended; whichever is longer goes on alone.

    There is one segment for every chunk; the text of all of them together is the text, character for character.
    """

    draws = False

    def __init__(self, config: Chunked, speller: Speller, rates: Mapping[str, float]) -> None:
        super().__init__(speller)
        self._config = config
        where = f"grammar.formats.{self.name}"
        self._prompt = Pattern(f"{where}.prompt", config.prompt, speller, config.deduplicate)
        self._body = Pattern(where, f"{{{config.text}}} | {{{config.audio}}}", speller, config.deduplicate)
        self._stream = config.audio.rpartition(".")[2]
        self._books = speller.vocabulary.codebooks(self._stream)
        if not self._prompt.items or self._prompt.items[-1].kind != "marker":
            raise InputError(f"{where}.prompt {config.prompt!r} must end with a marker: chunks begin with text")
        if config.audio_tokens % len(self._books):
            raise InputError(
                f"{where}.audio_tokens is {config.audio_tokens}, stream {self._stream!r} has frames of "
                f"{len(self._books)} codes: give a multiple"
            )
        self._end = speller.marker(config.end)
        self.continuation = self._continuation()

    def accepts(self, record: RecordLike) -> bool:
        """Whether the record has text and audio, and what the prompt shows."""
        return self._prompt.has(record) and self._body.has(record)

    def _wants(self) -> str:
        return f"one of {[*self._prompt.slots, *self._body.slots]}"

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        text, audio = (self._speller.ids(part) for part in self._body.parts(record))
        size, other = self._config.text_tokens, self._config.audio_tokens
        chunks: list[Part] = []
        for index in range(max(-(-len(text) // size), -(-len(audio) // other))):
            chunks.append(Part("", "", text[index * size : (index + 1) * size]))
            chunks.append(Part("", "", audio[index * other : (index + 1) * other]))
        return [*self._prompt.parts(record, trained="responses"), *chunks, self._end]

    def measure(self, record: RecordLike, rng: np.random.Generator | None = None) -> int:
        """Number of tokens: chunks do not change it."""
        self._checked(record)
        parts = [*self._prompt.parts(record), *self._body.parts(record), self._end]
        return sum(self._speller.length(part) for part in parts)

    def dropped_codes(self, record: RecordLike) -> int:
        """Codes of prompt and audio that make no whole frame and are left out."""
        return self._prompt.dropped_codes(record) + self._body.dropped_codes(record)

    def render(self, record: RecordLike, rng: np.random.Generator | None = None) -> Rendered:
        """The sequence; nothing is drawn. Raises InputError for a record not accepted."""
        ids, mask = self.tokens(record)
        return Rendered(ids, mask, self.parse(ids))

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of prompt and chunks, whole or cut short."""
        reader = Reader(self._speller, ids)
        segments = self._prompt.read(reader)
        chunks: list[tuple[int, np.ndarray]] = []  # text chunks: start, ids
        while not reader.done and not reader.at(int(self._end.value[0])):
            start = reader.position
            text = reader.run((self._speller.text_block,))
            if len(text):
                chunks.append((start, text))
            audio = reader.segment(self._stream, self._config.audio)
            segments += audio
            if reader.position == start:
                reader.refuse(self._config.end)
        reader.skip(int(self._end.value[0]))
        if not reader.done:
            reader.refuse("the end")
        return sorted([*segments, *self._texts(chunks)], key=lambda segment: segment.start)

    def _texts(self, chunks: Sequence[tuple[int, np.ndarray]]) -> list[Segment]:
        """Each chunk's share of the text: what it adds to the text so far. A character that a chunk cuts in two
        belongs to the chunk that ends it."""
        segments = []
        so_far = ""
        for index, (start, ids) in enumerate(chunks):
            text = self._speller.text.decode(np.concatenate([run for _, run in chunks[: index + 1]]))
            if index < len(chunks) - 1:
                text = text.rstrip("�")
            new = text[len(so_far) :] if text.startswith(so_far) else self._speller.text.decode(ids)
            so_far = text
            segments.append(Segment("text", new, start, start + len(ids), self._config.text))
        return segments

    def prompt(self, record: RecordLike) -> np.ndarray:
        """What comes before the chunks."""
        return self._speller.tokens(self._prompt.prompt_parts(record))[0]

    def _continuation(self) -> Continuation:
        """n text ids, m audio ids, again; a chunk that ends early says that its side is over."""
        n, m, books = self._config.text_tokens, self._config.audio_tokens, self._books
        text = self._speller.text_block
        more_audio, more_text, end = n + m + 1, n + m + 1 + len(books), n + m + 2 + len(books)
        over = Edge(self._speller.marker_block(self._config.end), end)
        edges: list[list[Edge]] = [[Edge(text, 1)]]
        for i in range(1, n):
            edges.append([Edge(text, i + 1), Edge(books[0], more_audio + 1 % len(books))])
        for j in range(m):  # state n + j: j audio ids of this chunk are written
            between = [Edge(text, more_text), over] if j and j % len(books) == 0 else []
            edges.append([Edge(books[j % len(books)], n + j + 1), *between])
        edges.append([Edge(text, 1), Edge(text, more_text), Edge(books[0], more_audio + 1 % len(books)), over])
        for k in range(len(books)):
            edges.append([Edge(books[k], more_audio + (k + 1) % len(books)), *([] if k else [over])])
        edges += [[Edge(text, more_text), over], []]
        slots = [*[self._config.text] * n, *[self._config.audio] * (m + 1 + len(books))]
        steps = (Step(self._config.text, (text,), True), Step(self._config.audio, books, True))
        automaton = determinise(edges, [*slots, self._config.text, None], starts=[0], ends=[end])
        return Continuation(steps, self._speller.vocabulary.padded_size, automaton)
