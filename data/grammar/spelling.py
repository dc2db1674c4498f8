"""Parts of a sequence and their ids: what the published formats are written with, and read back with.

Shapes: T = tokens of one sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from data.errors import InputError
from data.grammar.base import RecordLike, Rendered, Segment
from data.grammar.template import TextIds
from data.store import LINKS
from data.vocabulary import TEXT_BLOCK, Block, Vocabulary

TEXT_KINDS = ("text", "caption", "instruction")
EMPTY = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Part:
    """One piece to be spelt: fixed ids (no `kind`), a text or its words (a tuple), or the codes of a stream (its
    `kind`)."""

    kind: str
    slot: str
    value: Any
    target: bool = True


class Speller:
    """Parts -> lengths, ids, segments, for one task. `vocabulary` has the ids, `text` those of texts."""

    def __init__(self, task: str, vocabulary: Vocabulary, text: TextIds) -> None:
        self.task, self.vocabulary, self.text = task, vocabulary, text
        self.text_block = vocabulary.block(TEXT_BLOCK)

    def marker(self, marker: str, target: bool = True) -> Part:
        """A marker, written with its brackets. Raises InputError for one that the vocabulary lacks."""
        return Part("", "", np.array([self.vocabulary.marker_id(marker)], dtype=np.int32), target)

    def marker_block(self, marker: str) -> Block:
        """The one id of a marker."""
        return Block(marker, self.vocabulary.marker_id(marker), 1)

    def words(self, text: str, target: bool = True) -> Part:
        """Fixed words of a format: no segment."""
        return Part("", "", self.text(text), target)

    def length(self, part: Part) -> int:
        """Number of ids of a part."""
        if isinstance(part.value, tuple):
            return len(self._of_words(part.value))
        return len(self.text(part.value)) if isinstance(part.value, str) else len(part.value)

    def ids(self, part: Part) -> np.ndarray:
        """int32 ids of a part. Raises InputError for codes that do not fit their codebooks."""
        if isinstance(part.value, str):
            return self.text(part.value)
        if isinstance(part.value, tuple):
            return self._of_words(part.value)
        return self.vocabulary.encode_stream(part.kind, part.value) if part.kind else part.value

    def _of_words(self, words: tuple[str, ...]) -> np.ndarray:
        """Ids of words with spaces between them. Spans of words hardly ever come again, the words do: where the
        tokenizer writes each word alike whatever is beside it, what is remembered of words serves all spans."""
        if not self._is_wordwise:
            return self.text(" ".join(words))
        return np.concatenate([EMPTY, *(self.text(word) for word in words)])

    @cached_property
    def _is_wordwise(self) -> bool:
        probes = ("one two", "a, b!", "it's 3 x")
        apart = [np.concatenate([self.text(word) for word in probe.split()]) for probe in probes]
        return all(np.array_equal(ids, self.text(probe)) for ids, probe in zip(apart, probes, strict=True))

    def segment(self, kind: str, slot: str, ids: np.ndarray, start: int) -> list[Segment]:
        """The segment of ids that spell a text or codes: none where they are empty or no whole frame."""
        if not len(ids):
            return []
        if kind in TEXT_KINDS:
            return [Segment(kind, self.text.decode(ids), start, start + len(ids), slot)]
        codes = tuple(self.vocabulary.decode_stream(kind, ids).tolist())
        return [Segment(kind, codes, start, start + len(ids), slot)] if codes else []

    def tokens(self, parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
        """ids_T and loss_mask_T. The first id is no target: nothing in its document stands before it."""
        pieces = [self.ids(part) for part in parts]
        ids_T = np.concatenate([EMPTY, *pieces])
        mask_T = np.repeat([part.target for part in parts], [len(piece) for piece in pieces]).astype(bool)
        mask_T[:1] = False
        return ids_T, mask_T

    def rendered(self, parts: Sequence[Part]) -> Rendered:
        """The sequence with its segments."""
        ids_T, mask_T = self.tokens(parts)
        segments: list[Segment] = []
        start = 0
        for part in parts:
            length = self.length(part)
            if part.kind:
                segments += self.segment(part.kind, part.slot, ids_T[start : start + length], start)
            start += length
        return Rendered(ids_T, mask_T, segments)


class PartsGrammar:
    """A grammar told by the parts of a record: `_parts` draws from the rng, rendering and measuring follow from it."""

    draws = True
    croppable = False
    splittable = False

    def __init__(self, speller: Speller) -> None:
        self.name = speller.task
        self.pad_id = speller.vocabulary.pad_id
        self._speller = speller

    def accepts(self, record: RecordLike) -> bool:
        """Whether the record has everything that the sequence shows."""
        raise NotImplementedError

    def _parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        raise NotImplementedError

    def render(self, record: RecordLike, rng: np.random.Generator | None = None) -> Rendered:
        """The sequence of a record; without an rng, that of seed 0. Raises InputError for a record not accepted."""
        return self._speller.rendered(self._parts(self._checked(record), _rng(rng)))

    def tokens(self, record: RecordLike, rng: np.random.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
        """ids_T and loss_mask_T of `render`."""
        return self._speller.tokens(self._quick_parts(self._checked(record), _rng(rng)))

    def measure(self, record: RecordLike, rng: np.random.Generator | None = None) -> int:
        """Number of tokens of `render`, from the parts' lengths."""
        return sum(self._speller.length(part) for part in self._quick_parts(self._checked(record), _rng(rng)))

    def dropped_codes(self, record: RecordLike) -> int:
        """Codes of the record that make no whole frame (several codebooks) and are not shown."""
        return 0

    def _quick_parts(self, record: RecordLike, rng: np.random.Generator) -> list[Part]:
        """`_parts`, or fewer that spell the same: what training and planning need."""
        return self._parts(record, rng)

    def _checked(self, record: RecordLike) -> RecordLike:
        if not self.accepts(record):
            raise InputError(f"task {self.name!r}: record {getattr(record, 'id', '')!r} lacks {self._wants()}")
        return record

    def _wants(self) -> str:
        """What a record must have, in words."""
        return "something that the sequence shows"


def _rng(rng: np.random.Generator | None) -> np.random.Generator:
    return rng if rng is not None else np.random.default_rng(0)


class Reader:
    """Reads a sequence from left to right."""

    def __init__(self, speller: Speller, ids: Sequence[int] | np.ndarray) -> None:
        self.speller = speller
        self.ids = np.asarray(ids, dtype=np.int32).reshape(-1)
        self.position = 0

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self.position >= len(self.ids)

    def at(self, marker: int) -> bool:
        """Whether the next id is `marker`."""
        return not self.done and int(self.ids[self.position]) == marker

    def skip(self, marker: int) -> bool:
        """Goes past `marker` if it is next; says whether it was."""
        found = self.at(marker)
        self.position += found
        return found

    def run(self, blocks: Sequence[Block]) -> np.ndarray:
        """Goes past all ids of the consecutive `blocks` that come next."""
        rest = self.ids[self.position :]
        outside = (rest < blocks[0].start) | (rest >= blocks[-1].stop)
        length = int(outside.argmax()) if outside.any() else len(rest)
        self.position += length
        return rest[:length]

    def segment(self, kind: str, slot: str) -> list[Segment]:
        """Goes past the run of a text or stream that comes next, and gives its segment."""
        start = self.position
        return self.speller.segment(kind, slot, self.run(blocks_of(self.speller, kind)), start)

    def refuse(self, expected: str) -> NoReturn:
        """Raises InputError at the present position."""
        found = f"id {self.ids[self.position]}" if not self.done else "the end"
        raise InputError(
            f"task {self.speller.task!r}: {found} at position {self.position} does not fit the format, "
            f"expected {expected}: was this sequence made by another task or vocabulary?"
        )


def blocks_of(speller: Speller, kind: str) -> tuple[Block, ...]:
    """The ids of texts, or of a stream."""
    return (speller.text_block,) if kind in TEXT_KINDS else speller.vocabulary.codebooks(kind)


def owner_and_field(record: RecordLike, slot: str) -> tuple[Any, str]:
    """The record that a slot as "response.text" is about (None where there is no such one), and the field."""
    owner: Any = record
    head, dot, rest = slot.partition(".")
    while dot and head in LINKS:
        owner = getattr(owner, head, None) if owner is not None else None
        head, dot, rest = rest.partition(".")
    return owner, head


def prompted(parts: Iterable[Part]) -> list[Part]:
    """The same parts, none of them a target."""
    return [replace(part, target=False) for part in parts]
