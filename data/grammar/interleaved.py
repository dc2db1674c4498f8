"""Text and speech in one sequence, each span led by its modality's marker: SPIRIT LM's way, and Slam's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from data.errors import InputError
from data.grammar.automaton import determinise
from data.grammar.base import Grammar, RecordLike, Segment
from data.grammar.continuation import Continuation, Edge, Step
from data.grammar.expressive import Timed, merge, time_order
from data.grammar.interleave import WordSpan
from data.grammar.runs import Span, codes_and_frames, cut, shown_words, word_bounds
from data.grammar.sequence_format import SequenceFormat
from data.grammar.spelling import Part, PartsGrammar, Reader, Speller, prompted
from data.timing import frame_span


class Interleaving(SequenceFormat):
    """Text and speech in one sequence, each span led by its modality's marker."""

    PATTERNS: ClassVar = ("text_marker", "speech_marker", "end")
    shows: Literal["auto", "interleaved", "speech", "text"] = Field(
        "auto", description="auto: interleaved where a record has words with times, else its speech, else its text"
    )
    text_marker: str = "[Text]"
    speech_marker: str = "[Speech]"
    end: str | None = Field(
        None, description="marker after the last span; the publications have none, serving wants it"
    )
    generates: Literal["any", "speech", "text"] = Field(
        "any", description="modality of what follows a prompt; the other one's ids are banned"
    )
    unit: str = Field("unit", description="stream of speech units")
    deduplicate: bool = Field(True, description="show runs of equal units as one")

    def speech_streams(self) -> tuple[str, ...]:
        """The streams of speech, those that come first at equal times first; units last."""
        return (self.unit,)

    def deduplicates(self, stream: str) -> bool:
        """Whether runs of equal codes of a stream are shown as one."""
        return self.deduplicate

    def spans(self, num_words: int, rng: np.random.Generator) -> list[WordSpan]:
        """Which words are shown as speech and which as text at one visit."""
        raise NotImplementedError

    def streams(self) -> set[str]:
        """The streams of speech."""
        return set(self.speech_streams())

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of this format."""
        return InterleavedGrammar(self, speller, rates)


class InterleavedGrammar(PartsGrammar):
    """Spans of text and speech; records of one modality get one leading marker.

    Everything is trained on. Words shown as text are those of the record's text where it has as many.
    """

    splittable = True

    def __init__(self, config: Interleaving, speller: Speller, rates: Mapping[str, float]) -> None:
        super().__init__(speller)
        self._config, self._rates = config, rates
        self._streams = config.speech_streams()
        self._check()
        markers = [speller.vocabulary.marker_id(marker) for marker in (config.text_marker, config.speech_marker)]
        self._text_id, self._speech_id = markers
        self._end_id = speller.vocabulary.marker_id(config.end) if config.end else None
        self.continuation = self._continuation()

    def accepts(self, record: RecordLike) -> bool:
        """Whether the record has what is shown of it."""
        return self._shows(record) is not None

    def _wants(self) -> str:
        speech = ", ".join(self._streams)
        return f"speech ({speech}), text, or for interleaving both with word times: shows={self._config.shows}"

    def _shows(self, record: RecordLike) -> str | None:
        """ "interleaved", "speech" or "text"; None where the record lacks what is asked for."""
        words = getattr(record, "words", None)
        has_text = bool(record.text and record.text.strip())
        has_speech = all(len(record.streams.get(stream, ())) for stream in self._streams)
        having = {"interleaved": bool(has_speech and words), "speech": has_speech, "text": has_text}
        wanted = list(having) if self._config.shows == "auto" else [self._config.shows]
        return next((mode for mode in wanted if having[mode]), None)

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        return self._written(record, rng, quick=False)

    def _quick_parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        return self._written(record, rng, quick=True)

    def _written(self, record: RecordLike, rng: np.random.Generator, quick: bool) -> list[Part]:
        shown = self._shows(record)
        if shown == "interleaved":
            parts = self._interleaved(record, rng, quick)
        elif shown == "speech":
            parts = [self._marker(True), *self._speech(record, None, quick)]
        else:
            parts = [self._marker(False), Part("text", "text", str(record.text))]
        return parts if self._config.end is None else [*parts, self._speller.marker(self._config.end)]

    def _interleaved(self, record: RecordLike, rng: np.random.Generator, quick: bool) -> list[Part]:
        times = [(str(word), float(start), float(end)) for word, start, end in record.words]  # type: ignore[attr-defined]
        words = shown_words(record)
        parts: list[Part] = []
        for span in self._config.spans(len(words), rng):
            speech = self._speech(record, (span, times), quick) if span.is_speech else []
            if speech:
                parts += [self._marker(True), *speech]
            else:  # words of no frame are shown as text, lest they be lost
                parts += [self._marker(False), Part("text", "text", tuple(words[span.start : span.stop]))]
        return parts

    def _speech(
        self, record: RecordLike, part: tuple[WordSpan, list[tuple[str, float, float]]] | None, quick: bool
    ) -> list[Part]:
        """The speech of a record, or of a span of its words: cut at the frames of the units.

        Several streams are a part for every run of one of them, or, if `quick`, one part of ids.
        """
        unit = self._config.unit
        timed = [self._timed(record, stream) for stream in self._streams]
        if part is not None:
            span, times = part
            frames = int(timed[-1].frames.sum())
            bounds = word_bounds(times, frames, self._rates[unit])
            chosen = bounds[span.start], bounds[span.stop]
            if chosen[0] == chosen[1]:
                return []
            timed = [self._cut(one, chosen) for one in timed]
        if len(timed) == 1:
            return [Part(unit, unit, timed[0].codes)]
        if quick:
            ids = [self._speller.vocabulary.encode_stream(one.stream, one.codes) for one in timed]
            return [Part("", "", np.concatenate(ids)[time_order(timed)])]
        return [Part(stream, stream, codes) for stream, codes in merge(timed)]

    def _timed(self, record: RecordLike, stream: str) -> Timed:
        codes, frames = codes_and_frames(record, stream, self._config.deduplicates(stream))
        return Timed(stream, codes, frames, self._rates.get(stream, 1.0))

    def _cut(self, timed: Timed, unit_frames: Span) -> Timed:
        rate = self._rates[self._config.unit]
        span = unit_frames
        if timed.stream != self._config.unit:
            start_s, end_s = unit_frames[0] / rate, unit_frames[1] / rate
            span = frame_span(start_s, end_s, timed.frame_rate_hz, int(timed.frames.sum()))
        codes, frames = cut(timed.codes, timed.frames, span, self._config.deduplicates(timed.stream))
        return Timed(timed.stream, codes, frames, timed.frame_rate_hz)

    def _marker(self, is_speech: bool) -> Part:
        return self._speller.marker(self._config.speech_marker if is_speech else self._config.text_marker)

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of a sequence, whole or cut short: one for every text span and every run of a stream.

        What was generated may go on in the other modality without its marker.
        """
        reader = Reader(self._speller, ids)
        kinds = ("text", *self._streams)
        segments: list[Segment] = []
        while not reader.done:
            start = reader.position
            if not reader.skip(self._text_id) and not reader.skip(self._speech_id) and start:
                segments += [segment for kind in kinds for segment in reader.segment(kind, kind)]
            if self._end_id is not None and start and reader.skip(self._end_id):
                return segments if reader.done else reader.refuse("the end")
            if reader.position == start:
                reader.refuse(f"{self._config.text_marker} or {self._config.speech_marker}")
        return segments

    def prompt(self, record: RecordLike) -> np.ndarray:
        """The record's text where it has some, else its speech, each under its marker; then, where one modality alone
        is generated and it is the other, that one's marker."""
        text = (record.text or "").strip()
        has_speech = all(len(record.streams.get(stream, ())) for stream in self._streams)
        is_speech = not text and (has_speech or self._config.generates == "speech")
        body = (
            self._speech(record, None, True)
            if has_speech and is_speech
            else [Part("text", "text", text)]
            if text
            else []
        )
        parts = [self._marker(is_speech), *body]
        if self._config.generates != "any" and is_speech != (self._config.generates == "speech"):
            parts.append(self._marker(not is_speech))
        return self._speller.tokens(prompted(parts))[0]

    def _continuation(self) -> Continuation:
        """Text, speech or both, span after span, until the end marker where there is one."""
        texts = [Edge(self._speller.text_block, 1)]
        codes = [Edge(block, 2) for s in self._streams for block in self._speller.vocabulary.codebooks(s)]
        to_text = Edge(self._speller.marker_block(self._config.text_marker), 3)
        to_speech = Edge(self._speller.marker_block(self._config.speech_marker), 4)
        over = [Edge(self._speller.marker_block(self._config.end), 5)] if self._config.end else []
        allowed = {"text": [*texts], "speech": [*codes], "any": [*texts, *codes, to_text, to_speech]}
        start = allowed[self._config.generates] + over
        after_text = [*texts, *([to_speech] if self._config.generates == "any" else []), *over]
        after_codes = [*codes, *([to_text] if self._config.generates == "any" else []), *over]
        unit = self._config.unit
        edges = [start, after_text, after_codes, texts, codes, []]
        slots = [None, "text", unit, "text", unit, None]
        steps = [Step("text", (self._speller.text_block,), True)] if self._config.generates != "speech" else []
        if self._config.generates != "text":
            steps.append(Step(unit, self._speller.vocabulary.codebooks(unit), True))
        return Continuation(
            tuple(steps), self._speller.vocabulary.padded_size, determinise(edges, slots, starts=[0], ends=[5])
        )

    def _check(self) -> None:
        for stream in self._streams:
            if len(self._speller.vocabulary.codebooks(stream)) != 1:
                raise InputError(f"grammar.formats.{self.name}: stream {stream!r} has several codebooks, one is shown")
            needed = self._config.shows in ("auto", "interleaved") or len(self._streams) > 1
            if needed and stream not in self._rates:
                raise InputError(
                    f"grammar.formats.{self.name} cuts {stream!r} by time and its frame rate is unknown: "
                    f"give frame_rates_hz: {{{stream}: …}}"
                )
