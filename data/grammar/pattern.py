"""Patterns: lines of a published format, with markers, slots and fixed words.

    [Human]: {instruction}. This is input: <sosp>{unit}<eosp><eoh>. [SpeechGPT]: | {text}<eos>.

`[…]` and `<…>` are markers (one id each), `{…}` slots, `|` stands before what is generated, and all else is text,
written with the text tokenizer. A line is read back exactly: fixed words at either end of a run of text are known, and
a slot before fixed words within a run must be {instruction}, whose candidates are checked when the pattern is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from data.errors import InputError
from data.grammar.base import RecordLike, Segment
from data.grammar.continuation import Step
from data.grammar.layout import Codes, Fixed, Layout, Written, codes_piece
from data.grammar.runs import shown_codes
from data.grammar.sequence_format import MARKER, SLOT
from data.grammar.spelling import TEXT_KINDS, Part, Reader, Speller, blocks_of, owner_and_field
from data.vocabulary import PAD, Block

_PIECES = re.compile(rf"({SLOT.pattern.replace('(', '(?:')}|{MARKER.pattern}|\|)")
INSTRUCTION = "instruction"


@dataclass(frozen=True)
class Item:
    """One item of a pattern: a marker or fixed words (`ids`), or a slot of a `kind`."""

    kind: str
    slot: str = ""
    ids: tuple[int, ...] = ()
    spelt: str = ""

    @property
    def is_text(self) -> bool:
        """Whether its ids are those of texts."""
        return self.kind == "words" or self.kind in TEXT_KINDS

    @cached_property
    def array(self) -> np.ndarray:
        """`ids` as int32."""
        return np.array(self.ids, dtype=np.int32)


class Pattern:
    """One line. Raises InputError that names `where` and what is wrong with it.

    `instructions` are what {instruction} may be; `deduplicate` shows runs of equal codes as one.
    """

    def __init__(
        self, where: str, text: str, speller: Speller, deduplicate: bool = False, instructions: Sequence[str] = ()
    ) -> None:
        self._speller, self._deduplicate, self.instructions = speller, deduplicate, tuple(instructions)
        try:
            self.items, self._num_prompt = _read(text, speller)
            self._check()
        except InputError as error:
            raise InputError(f"{where}: {text!r}: {error}") from None
        self.slots = tuple(item.slot for item in self.items if item.slot and item.slot != INSTRUCTION)
        self.prompt_slots = tuple(i.slot for i in self.items[: self._num_prompt] if i.slot and i.slot != INSTRUCTION)
        coded = [(item.slot, item.kind) for item in self.items if item.slot and not item.is_text]
        books = [(slot, len(speller.vocabulary.codebooks(stream))) for slot, stream in coded]
        self._framed = [(slot, count) for slot, count in books if count > 1]  # slots of several codebooks

    def has(self, record: RecordLike, slots: Sequence[str] | None = None) -> bool:
        """Whether the record fills all slots, or those named."""
        return all(_filled(self._value(record, slot)) for slot in (self.slots if slots is None else slots))

    def dropped_codes(self, record: RecordLike) -> int:
        """Codes that make no whole frame, and are not shown, in all slots that the record fills."""
        dropped = 0
        for slot, books in self._framed:
            owner, stream = owner_and_field(record, slot)
            dropped += len(owner.streams.get(stream, ())) % books if owner is not None else 0
        return dropped

    def draw(self, rng: np.random.Generator) -> str:
        """One of the instructions; draws once where there are any."""
        return self.instructions[int(rng.integers(len(self.instructions)))] if self.instructions else ""

    def parts(self, record: RecordLike, instruction: str = "", trained: str = "all") -> list[Part]:
        """The line for a record; `trained` is "all" or "responses" (what follows the bar)."""
        return [
            self._part(item, record, instruction, trained == "all" or index >= self._num_prompt)
            for index, item in enumerate(self.items)
        ]

    def layout(self) -> Layout | None:
        """The pieces of the line with its responses as targets; None where a slot is not shown as it is stored."""
        found: list[Fixed | Codes | Written] = []
        for index, item in enumerate(self.items):
            target = index >= self._num_prompt
            if not item.slot:
                found.append(Fixed(item.array, target))
            elif item.slot != item.kind or item.slot == INSTRUCTION:
                return None
            elif item.kind in TEXT_KINDS:
                found.append(Written(item.kind, self._speller.text, target))
            elif self._deduplicate:
                return None
            else:
                found.append(codes_piece(self._speller.vocabulary, item.kind, target))
        return tuple(found)

    def prompt_parts(self, record: RecordLike) -> list[Part]:
        """What stands before the bar, with the first instruction; empty slots stay empty."""
        instruction = self.instructions[0] if self.instructions else ""
        return [self._part(item, record, instruction, False) for item in self.items[: self._num_prompt]]

    def read(self, reader: Reader) -> list[Segment]:
        """The segments of a line that begins at the reader, whole or cut short. Raises InputError where it does not
        fit."""
        segments: list[Segment] = []
        for is_text, items in groupby(self.items, key=lambda item: item.is_text):
            if reader.done:
                break
            group = list(items)
            segments += self._read_text(reader, group) if is_text else _read_coded(reader, group)
        return segments

    def answered_by(self, other: Pattern) -> Pattern:
        """A line that asks as this one does and is answered as the other is."""
        mixed = copy(self)
        mixed.items = self.items[: self._num_prompt] + other.items[other._num_prompt :]
        return mixed

    def steps(self) -> tuple[Step, ...]:
        """What may be generated: fixed words beside an open text are part of it, those after the last marker are
        left out."""
        return tuple(self._steps(self._num_prompt))

    def steps_of_all(self) -> tuple[Step, ...]:
        """`steps`, as if the bar stood first."""
        return tuple(self._steps(0))

    def _steps(self, first: int) -> Iterator[Step]:
        items = list(self.items[first:])
        while items and items[-1].kind == "words":
            items.pop()
        for is_text, members in groupby(items, key=lambda item: item.is_text):
            group = list(members)
            opened = [item for item in group if item.kind in TEXT_KINDS]
            if is_text and opened:
                yield Step(opened[-1].slot, (self._speller.text_block,), True)
                continue
            for item in group:
                if item.slot:
                    yield Step(item.slot, blocks_of(self._speller, item.kind), True)
                else:
                    yield from (Step(None, (Block(item.spelt, token, 1),), False) for token in item.ids)

    def _part(self, item: Item, record: RecordLike, instruction: str, target: bool) -> Part:
        if not item.slot:
            return Part("", "", item.array, target)
        value = instruction if item.slot == INSTRUCTION else self._value(record, item.slot)
        empty = "" if item.kind in TEXT_KINDS else np.zeros(0, dtype=np.int16)
        return Part(item.kind, item.slot, empty if value is None else value, target)

    def _value(self, record: RecordLike, slot: str) -> Any:
        owner, field = owner_and_field(record, slot)
        if owner is None:
            return None
        if field in TEXT_KINDS:
            return getattr(owner, field, None)
        books = len(self._speller.vocabulary.codebooks(field))
        codes = shown_codes(owner, field, self._deduplicate and books == 1)
        return codes[: len(codes) // books * books]

    def _read_text(self, reader: Reader, group: list[Item]) -> list[Segment]:
        """A run of text: fixed words are known, slots are what lies between them."""
        start = reader.position
        run = reader.run((self._speller.text_block,))
        left, right = 0, len(run)
        if group[0].kind == "words":
            left = _common(run, group[0].array)
            group = group[1:]
        if group and group[-1].kind == "words":
            right -= _ending(run[left:], group[-1].array)
            group = group[:-1]
        if not group:
            reader.position = start + left  # whatever else stands there does not fit what comes next
            return []
        segments: list[Segment] = []
        for item, following in zip(group, [*group[1:], None], strict=True):
            if item.kind == "words":
                left += len(item.ids)
                continue
            found = _find(run[left:right], following.array) if following else right - left
            end = right if found is None else left + found
            segments += self._speller.segment(item.kind, item.slot, run[left:end], start + left)
            left = end
        return segments

    def _check(self) -> None:
        for left, right in pairwise(self.items):
            if left.slot and right.slot and ((left.is_text and right.is_text) or left.kind == right.kind):
                raise InputError(
                    f"{{{left.slot}}} and {{{right.slot}}} cannot be told apart: put a marker between them"
                )
        for is_text, items in groupby(self.items, key=lambda item: item.is_text):
            group = list(items)
            opened = [(index, item) for index, item in enumerate(group) if item.slot]
            if not is_text or len(opened) < 2:
                continue
            for index, item in opened[:-1]:
                self._check_inner(item, group[index + 1])

    def _check_inner(self, item: Item, following: Item) -> None:
        if item.slot != INSTRUCTION:
            raise InputError(f"where {{{item.slot}}} ends cannot be read back: put a [marker] after it")
        for instruction in self.instructions:
            ids = self._speller.text(instruction)
            if _find(np.concatenate([ids, following.array]), following.array) != len(ids):
                raise InputError(f"instruction {instruction!r} holds the words {following.spelt!r}: write it otherwise")


def _read(text: str, speller: Speller) -> tuple[tuple[Item, ...], int]:
    items: list[Item] = []
    bars: list[int] = []
    for piece in (piece.strip() for piece in _PIECES.split(text)):
        if piece == "|":
            bars.append(len(items))
        elif piece:
            items.append(_item(piece, speller))
    if len(bars) > 1:
        raise InputError(f"has {len(bars)} bars: write one | before what is to be generated")
    return tuple(items), bars[0] if bars else len(items)


def _item(piece: str, speller: Speller) -> Item:
    if SLOT.fullmatch(piece):
        slot = piece[1:-1]
        field = slot.rpartition(".")[2]
        known = [*TEXT_KINDS, *speller.vocabulary.streams]
        if field not in known:
            raise InputError(f"slot {piece} is unknown: choose from {known}, or response.<one of them>")
        return Item(field, slot)
    if MARKER.fullmatch(piece):
        if piece == PAD or piece.startswith("[voice:"):
            raise InputError(f"{piece} is reserved: use another name")
        return Item("marker", ids=(speller.vocabulary.marker_id(piece),), spelt=piece)
    return Item("words", ids=tuple(speller.text(piece).tolist()), spelt=piece)


def _read_coded(reader: Reader, group: list[Item]) -> list[Segment]:
    segments: list[Segment] = []
    for item in group:
        if reader.done:
            break
        if item.slot:
            segments += reader.segment(item.kind, item.slot)
        elif not reader.skip(item.ids[0]):
            reader.refuse(item.spelt)
    return segments


def _filled(value: Any) -> bool:
    return value is not None and len(value.strip() if isinstance(value, str) else value) > 0


def _common(run: np.ndarray, words: np.ndarray) -> int:
    """How many ids to skip at the start: all of `words`, what there is of them in a run cut short, or none."""
    length = min(len(run), len(words))
    return length if (run[:length] == words[:length]).all() else 0


def _ending(run: np.ndarray, words: np.ndarray) -> int:
    return len(words) if len(run) >= len(words) and (run[len(run) - len(words) :] == words).all() else 0


def _find(run: np.ndarray, words: np.ndarray) -> int | None:
    """Where `words` first occur."""
    if len(run) < len(words):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(run, len(words))
    found = (windows == words).all(axis=1)
    return int(found.argmax()) if found.any() else None


def instruction_sets(own: Mapping[str, tuple[str, ...]], name: str) -> tuple[str, ...]:
    """A recipe's own descriptions for a task, or the built-in ones. Raises InputError where there are neither."""
    from data.grammar.instructions import built_in

    found = own.get(name) or built_in().get(name)
    if found is None:
        known = sorted({*own, *built_in()})
        raise InputError(f"instruction set {name!r} is unknown: choose from {known}, or write it under `instructions`")
    return found
