"""Sequence formats written as templates of the recipe.

A template is items separated by spaces: `[marker]`, `{slot}` and one `|`. What follows `|` is trained on and
generated. Slots: `{text}`, `{caption}`, `{speaker}` (the voice's marker), any stream (`{unit}`, `{music}`), and each
of them of the answer, as `{response.text}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from data.errors import InputError
from data.grammar.base import Grammar, RecordLike, Rendered, Segment
from data.grammar.continuation import Continuation, Step
from data.grammar.layout import Codes, Fixed, Layout, Written, codes_piece
from data.text_tokenizer import decode_text, encode_text
from data.vocabulary import PAD, TEXT_BLOCK, Block, Vocabulary, voice_marker

if TYPE_CHECKING:
    from data.config import GrammarConfig

RESPONSE = "response."
_FORM = re.compile(r"\[[^\[\]{}|]+\]|\{[^\[\]{}|]+\}|\|")


@dataclass(frozen=True)
class _Item:
    """One item of a template. `kind` is "marker", "text", "caption", "voice" or a stream's name."""

    kind: str
    slot: str
    blocks: tuple[Block, ...]

    @cached_property
    def is_open(self) -> bool:
        return self.kind not in ("marker", "voice")

    @cached_property
    def ids(self) -> np.ndarray:
        return np.array([self.blocks[0].start], dtype=np.int32)

    @cached_property
    def owner_and_field(self) -> tuple[bool, str]:
        return self.slot.startswith(RESPONSE), self.slot.removeprefix(RESPONSE)


class TextIds:
    """Text -> ids, remembered: corpora repeat few texts at every visit. Shared by the grammars of a run."""

    def __init__(self, tokenizer: Any, block: Block, max_texts: int = 200_000) -> None:
        self._tokenizer, self._block, self._max_texts = tokenizer, block, max_texts
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, text: str) -> np.ndarray:
        """Ids of `text`, int32. Raises InputError when the tokenizer gives ids outside the text block."""
        known = self._known.get(text)
        if known is None:
            known = np.array(encode_text(self._tokenizer, text), dtype=np.int32)
            if len(known) and int(known.max()) >= self._block.stop:
                raise InputError(
                    f"text {text[:60]!r} has ids up to {known.max()}, the vocabulary's text block ends at "
                    f"{self._block.stop}: use the text tokenizer that the vocabulary was built with"
                )
            if len(self._known) >= self._max_texts:
                self._known.clear()
            self._known[text] = known
        return known

    def decode(self, ids: np.ndarray) -> str:
        """The text of ids."""
        return decode_text(self._tokenizer, ids.tolist())


class TemplateGrammar:
    """The grammar of one template. Raises InputError that names the template for one that cannot be read back."""

    draws = False

    def __init__(self, task: str, template: str, vocabulary: Vocabulary, text_tokenizer: Any) -> None:
        self.name = task
        self.pad_id = vocabulary.pad_id
        self._vocabulary = vocabulary
        block = vocabulary.block(TEXT_BLOCK)
        self._text = text_tokenizer if isinstance(text_tokenizer, TextIds) else TextIds(text_tokenizer, block)
        self._items, self._num_prompt_items = _read_template(task, template, vocabulary)
        slots = [item for item in self._items if item.slot]
        self.croppable = all(not item.slot.startswith(RESPONSE) and item.kind != "caption" for item in slots)
        self.splittable = not any(item.slot for item in self._items[: self._num_prompt_items])
        targets = self._items[self._num_prompt_items :]
        steps = tuple(Step(item.slot or None, item.blocks, item.is_open) for item in targets)
        self.continuation = Continuation(steps, vocabulary.padded_size)

    @property
    def layout(self) -> Layout | None:
        """Its pieces; None where a slot is of an answer."""
        found: list[Fixed | Codes | Written] = []
        for index, item in enumerate(self._items):
            target = index >= self._num_prompt_items
            if not item.slot:
                found.append(Fixed(item.ids, target))
            elif item.slot.startswith(RESPONSE):
                return None
            elif item.kind == "voice":
                found.append(Written("speaker", self._voice_ids, target))
            elif item.kind in ("text", "caption"):
                found.append(Written(item.kind, self._text, target))
            else:
                found.append(codes_piece(self._vocabulary, item.kind, target))
        return tuple(found)

    def accepts(self, record: RecordLike) -> bool:
        """Whether every slot has something to show, and every voice a marker."""
        return all(self._has(item, record) for item in self._items if item.slot)

    def render(self, record: RecordLike, rng: np.random.Generator | None = None) -> Rendered:
        """The whole sequence; `rng` is not used. Raises InputError when a slot is empty."""
        pieces = self._pieces(record)
        segments, start = [], 0
        for item, ids in zip(self._items, pieces, strict=True):
            if item.slot:
                segments.append(self._segment(item, ids, start))
            start += len(ids)
        return Rendered(*self._joined(pieces), segments)

    def tokens(self, record: RecordLike, rng: np.random.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
        """ids_T and loss_mask_T of `render`; `rng` is not used. Raises InputError when a slot is empty."""
        return self._joined(self._pieces(record))

    def measure(self, record: RecordLike, rng: np.random.Generator | None = None) -> int:
        """Number of tokens of `render`; `rng` is not used."""
        return sum(self._length(item, record) for item in self._items)

    def dropped_codes(self, record: RecordLike) -> int:
        """None: codes that make no whole frame are an error."""
        return 0

    def prompt(self, record: RecordLike) -> np.ndarray:
        """Everything before `|`, int32 ids. A slot that the record lacks is empty. Raises InputError for a voice
        without a marker."""
        pieces = [self._ids(item, record) for item in self._items[: self._num_prompt_items]]
        return np.concatenate([np.zeros(0, dtype=np.int32), *pieces])

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of `ids`. Empty slots give none, and a sequence that ends early gives what it holds (codes up
        to the last whole frame). Raises InputError at the first id that the template does not allow."""
        ids_T = np.asarray(ids, dtype=np.int32)
        segments: list[Segment] = []
        position = 0
        for item in self._items:
            if position == len(ids_T):
                break
            length = _run_length(item, ids_T, position)
            if item.slot and length:
                segments.append(self._segment(item, ids_T[position : position + length], position))
            elif not item.slot and not length:
                self._refuse(item, ids_T, position)
            position += length
        if position < len(ids_T):
            self._refuse(None, ids_T, position)
        return [segment for segment in segments if segment.content != ()]

    def _pieces(self, record: RecordLike) -> list[np.ndarray]:
        pieces = [self._ids(item, record) for item in self._items]
        for item, ids in zip(self._items, pieces, strict=True):
            if not len(ids):
                raise InputError(f"task {self.name!r}: a record without {item.slot!r} cannot be rendered")
        return pieces

    def _joined(self, pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        ids_T = np.concatenate(pieces)
        return ids_T, np.arange(len(ids_T)) >= sum(len(ids) for ids in pieces[: self._num_prompt_items])

    def _has(self, item: _Item, record: RecordLike) -> bool:
        owner, value = _value(item, record)
        if owner is None or value is None:
            return False
        if item.kind == "voice":
            return self._vocabulary.has_marker(voice_marker(value))
        return len(value.strip() if isinstance(value, str) else value) > 0

    def _ids(self, item: _Item, record: RecordLike) -> np.ndarray:
        if not item.slot:
            return item.ids
        _, value = _value(item, record)
        if value is None or len(value) == 0:
            return np.zeros(0, dtype=np.int32)
        if item.kind == "voice":
            return self._voice_ids(value)
        return self._text(value) if isinstance(value, str) else self._vocabulary.encode_stream(item.kind, value)

    def _length(self, item: _Item, record: RecordLike) -> int:
        if not item.is_open:
            return 1
        _, value = _value(item, record)
        return len(self._text(value)) if isinstance(value, str) else np.size(value)

    def _voice_ids(self, name: str) -> np.ndarray:
        if not self._vocabulary.has_marker(voice_marker(name)):
            raise InputError(f"voice {name!r} is unknown: choose from {list(self._vocabulary.voices)}")
        return np.array([self._vocabulary.marker_id(voice_marker(name))], dtype=np.int32)

    def _segment(self, item: _Item, ids: np.ndarray, start: int) -> Segment:
        content: str | tuple[int, ...]
        if item.kind == "voice":
            content = self._vocabulary.token_name(int(ids[0]))[len("[voice:") : -1]
        elif item.kind in ("text", "caption"):
            content = self._text.decode(ids)
        else:
            content = tuple(self._vocabulary.decode_stream(item.kind, ids).tolist())
        return Segment(item.kind, content, start, start + len(ids), item.slot)

    def _refuse(self, item: _Item | None, ids_T: np.ndarray, position: int) -> NoReturn:
        expected = "the end" if item is None else self._vocabulary.token_name(item.blocks[0].start)
        raise InputError(
            f"task {self.name!r}: id {ids_T[position]} at position {position} does not fit the template, "
            f"expected {expected}: was this sequence made by another task or vocabulary?"
        )


def build_grammars(
    config: GrammarConfig, vocabulary: Vocabulary, text_tokenizer: Any, streams: Mapping[str, Any] | None = None
) -> dict[str, Grammar]:
    """The grammar of every task of a recipe. They share one memory of texts.

    `streams` (data.store.StreamInfo by name) tell the frame rates to formats that cut by time.
    """
    from data.grammar.spelling import Speller

    text = TextIds(text_tokenizer, vocabulary.block(TEXT_BLOCK))
    templates = {task: TemplateGrammar(task, template, vocabulary, text) for task, template in config.templates.items()}
    formats = {
        task: form.build(Speller(task, vocabulary, text), form.rates(task, streams or {}))
        for task, form in config.formats.items()
    }
    return {**templates, **formats}


def _value(item: _Item, record: RecordLike) -> tuple[Any, Any]:
    """The record that owns a slot (None when there is no answer), and the slot's value there (None when missing)."""
    of_response, field = item.owner_and_field
    owner = record.response if of_response else record
    if owner is None:
        return None, None
    return owner, getattr(owner, field) if field in ("text", "caption", "speaker") else owner.streams.get(field)


def _run_length(item: _Item, ids_T: np.ndarray, position: int) -> int:
    """How many ids from `position` on belong to `item`: a marker or voice takes one, an open slot all it can."""
    if not item.is_open:
        return int(any(ids_T[position] in block for block in item.blocks))
    low, high = item.blocks[0].start, item.blocks[-1].stop
    outside = (ids_T[position:] < low) | (ids_T[position:] >= high)
    return int(np.argmax(outside)) if outside.any() else len(outside)


def _read_template(task: str, template: str, vocabulary: Vocabulary) -> tuple[list[_Item], int]:
    """Items without the bar, and how many of them stand before it."""

    def refuse(problem: str) -> NoReturn:
        raise InputError(f"grammar.templates.{task}: {template!r}: {problem}")

    words = template.split()
    for word in words:
        if not _FORM.fullmatch(word):
            refuse(f"{word!r} is neither [marker] nor {{slot}} nor |: separate items by spaces and balance brackets")
    if words.count("|") != 1:
        refuse(f"has {words.count('|')} bars: write one | before what is to be generated")
    bar = words.index("|")
    try:
        items = [_read_item(word, vocabulary) for word in words if word != "|"]
    except InputError as error:
        refuse(str(error))
    if bar == len(items) or items[-1].is_open:
        refuse("what follows | must end with a marker that ends the generation, e.g. [eos]")
    for left, right in pairwise(items):
        if left.is_open and left.blocks == right.blocks:
            refuse(f"{{{left.slot}}} and {{{right.slot}}} cannot be told apart: put a [marker] between them")
    return items, bar


def _read_item(word: str, vocabulary: Vocabulary) -> _Item:
    name = word[1:-1]
    if word.startswith("["):
        if word == PAD or name.startswith("voice:"):
            raise InputError(f"{word} is reserved: use another name, and {{speaker}} for the record's voice")
        return _Item("marker", "", (Block(word, vocabulary.marker_id(word), 1),))
    field = name.removeprefix(RESPONSE)
    if field == "speaker":
        return _Item("voice", name, vocabulary.voice_blocks)
    if field in ("text", "caption"):
        return _Item(field, name, (vocabulary.block(TEXT_BLOCK),))
    if field not in vocabulary.streams:
        known = ["text", "caption", "speaker", *vocabulary.streams]
        raise InputError(f"slot {word} is unknown: choose from {known}, or {RESPONSE}<one of them>")
    return _Item(field, name, vocabulary.codebooks(field))
