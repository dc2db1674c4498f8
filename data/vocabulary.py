"""One vocabulary, by arithmetic: text ids, then markers, then one block for each codebook of each stream."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from data.errors import InputError

if TYPE_CHECKING:
    from data.config import GrammarConfig

PAD = "[pad]"
EOS = "[eos]"
MARKER_BLOCK = "marker"
TEXT_BLOCK = "text"
MULTIPLE = 64  # the embedding's size is padded to this, for tensor cores
_MARKER = re.compile(r"(?<!\S)\[[^\[\]\s]+\](?!\S)")


class CodeSpace(Protocol):
    """What the vocabulary needs to know of a stream (data.store.StreamInfo has it)."""

    @property
    def num_codebooks(self) -> int: ...
    @property
    def codebook_size(self) -> int: ...


@dataclass(frozen=True)
class Block:
    """The ids start … start + size - 1."""

    name: str
    start: int
    size: int

    @property
    def stop(self) -> int:
        """The first id after the block."""
        return self.start + self.size

    def __contains__(self, token: int) -> bool:
        return self.start <= token < self.stop


@dataclass(frozen=True)
class Vocabulary:
    """Consecutive blocks "text", "marker", "<stream>.<codebook>" …, and what was appended later, in any order.

    Later markers stand in blocks "marker+1", "marker+2", …; `markers` are those of all marker blocks, in order of id.
    Extending a vocabulary appends blocks; it never renumbers.
    """

    blocks: tuple[Block, ...]
    markers: tuple[str, ...]

    def __post_init__(self) -> None:
        starts = [sum(block.size for block in self.blocks[:index]) for index in range(len(self.blocks))]
        if starts != [block.start for block in self.blocks]:
            raise InputError(f"vocabulary blocks {self.blocks} have gaps or overlap: expected starts {starts}")
        places = sum(block.size for block in self.marker_blocks)
        if len(set(self.markers)) != len(self.markers) or places != len(self.markers):
            raise InputError(f"markers {self.markers} must be distinct and as many as their blocks have ids")

    @property
    def size(self) -> int:
        """Number of ids in use."""
        return self.blocks[-1].stop

    @property
    def padded_size(self) -> int:
        """Rows of the embedding: `size`, rounded up to a multiple of 64."""
        return -(-self.size // MULTIPLE) * MULTIPLE

    @property
    def pad_id(self) -> int:
        """Id of `[pad]`."""
        return self.marker_id(PAD)

    @property
    def eos_id(self) -> int:
        """Id of `[eos]`."""
        return self.marker_id(EOS)

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, in the order of their blocks."""
        return tuple(dict.fromkeys(block.name.rpartition(".")[0] for block in self.blocks if "." in block.name))

    @property
    def voices(self) -> tuple[str, ...]:
        """Names of the voices that have a marker."""
        return tuple(marker[len("[voice:") : -1] for marker in self.markers if _is_voice(marker))

    @property
    def marker_blocks(self) -> tuple[Block, ...]:
        """The blocks of markers: the first one, and those appended later."""
        return tuple(block for block in self.blocks if block.name.partition("+")[0] == MARKER_BLOCK)

    @property
    def voice_blocks(self) -> tuple[Block, ...]:
        """The ids of the voices' markers, which end each block of markers; an empty block where there is none."""
        found, first = [], 0
        for block in self.marker_blocks:
            voices = sum(_is_voice(marker) for marker in self.markers[first : first + block.size])
            found += [Block("voice", block.stop - voices, voices)] if voices else []
            first += block.size
        return tuple(found) or (Block("voice", self.marker_blocks[0].stop, 0),)

    def extended(self, markers: Iterable[str], streams: Mapping[str, CodeSpace]) -> Vocabulary:
        """This vocabulary, with markers and streams that it lacks as new blocks after all others.

        No id changes its meaning. Raises InputError for a stream that is here with other codebooks.
        """
        sizes = []
        for name, info in sorted(streams.items()):
            wanted = [info.codebook_size] * info.num_codebooks
            known = [block.size for block in self._codebooks.get(name, ())]
            if known and known != wanted:
                raise InputError(
                    f"stream {name!r} has codebooks of {wanted} codes, the vocabulary to be extended has {known}: use "
                    "the tokenizer that it was made with, or give the stream another name"
                )
            sizes += [] if known else [(f"{name}.{codebook}", size) for codebook, size in enumerate(wanted)]
        new = sorted(set(markers) - set(self.markers), key=lambda marker: (_is_voice(marker), marker))
        if new:
            sizes.insert(0, (f"{MARKER_BLOCK}+{len(self.marker_blocks)}", len(new)))
        return Vocabulary(_consecutive(self.blocks, sizes), (*self.markers, *new))

    def block(self, name: str) -> Block:
        """The block of that name. Raises InputError when there is none."""
        if name not in self._by_name:
            raise InputError(f"the vocabulary has no block {name!r}: known are {sorted(self._by_name)}")
        return self._by_name[name]

    def block_of(self, token: int) -> Block | None:
        """The block that holds id `token`; None for padding rows of the embedding."""
        return next((block for block in self.blocks if token in block), None)

    def marker_id(self, marker: str) -> int:
        """The id of a marker, written with its brackets. Raises InputError when it is unknown."""
        if marker not in self._marker_ids:
            raise InputError(f"the vocabulary has no marker {marker!r}: known are {sorted(self._marker_ids)}")
        return self._marker_ids[marker]

    def has_marker(self, marker: str) -> bool:
        """Whether `marker`, written with its brackets, has an id."""
        return marker in self._marker_ids

    def codebooks(self, stream: str) -> tuple[Block, ...]:
        """The blocks of a stream's codebooks, in order. Raises InputError for an unknown stream."""
        if stream not in self._codebooks:
            raise InputError(f"the vocabulary has no stream {stream!r}: known are {list(self.streams)}")
        return self._codebooks[stream]

    def encode_stream(self, name: str, codes: Any) -> np.ndarray:
        """Codes (flat frame-major, or T x K) -> flat frame-major ids, int32. Raises InputError for a bad code."""
        blocks = self.codebooks(name)
        flat = np.asarray(codes, dtype=np.int32).reshape(-1)
        if len(flat) % len(blocks):
            raise InputError(f"stream {name!r}: {len(flat)} codes are not whole frames of {len(blocks)} codebooks")
        frames_TK = flat.reshape(-1, len(blocks))
        starts, sizes = self._offsets[name]
        if len(flat) and (flat.min() < 0 or (frames_TK >= sizes).any()):
            raise InputError(
                f"stream {name!r}: codes from {flat.min()} to {flat.max()} do not fit codebooks of {sizes.tolist()}: "
                "tokenize again with the tokenizer that this vocabulary was built for"
            )
        return (frames_TK + starts).reshape(-1)

    def decode_stream(self, name: str, ids: Any) -> np.ndarray:
        """Flat frame-major ids -> flat frame-major codes, int16; a ragged last frame is dropped.

        Raises InputError for an id outside its codebook's block.
        """
        blocks = self.codebooks(name)
        flat = np.asarray(ids, dtype=np.int32).reshape(-1)
        starts, sizes = self._offsets[name]
        codes_TK = flat[: len(flat) // len(blocks) * len(blocks)].reshape(-1, len(blocks)) - starts
        if (codes_TK < 0).any() or (codes_TK >= sizes).any():
            raise InputError(f"ids {flat.tolist()[:16]} … are not frames of stream {name!r}")
        return codes_TK.reshape(-1).astype(np.int16)

    def token_name(self, token: int) -> str:
        """How an id after the text block is spelt in a saved tokenizer: `[asr]`, `<unit.0:17>`."""
        block = self.block_of(token)
        if block is None or block.name == TEXT_BLOCK:
            raise InputError(f"id {token} is no marker and no code: ids {self.blocks[0].stop} to {self.size - 1} are")
        if block in self.marker_blocks:
            return self._markers_by_id[token]
        return f"<{block.name}:{token - block.start}>"

    def added_tokens(self) -> list[str]:
        """Spellings of all ids after the text block, in order of id."""
        return [self.token_name(token) for token in range(self.blocks[0].stop, self.size)]

    def to_json(self) -> dict[str, Any]:
        """The form kept in antiphon.json: {"blocks": [{name, start, size}, …], "markers": […]}."""
        blocks = [{"name": block.name, "start": block.start, "size": block.size} for block in self.blocks]
        return {"blocks": blocks, "markers": list(self.markers)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Vocabulary:
        """The inverse of `to_json`; other keys are ignored."""
        return cls(tuple(Block(**block) for block in value["blocks"]), tuple(value["markers"]))

    @cached_property
    def _by_name(self) -> dict[str, Block]:
        return {block.name: block for block in self.blocks}

    @cached_property
    def _marker_ids(self) -> dict[str, int]:
        ids = (token for block in self.marker_blocks for token in range(block.start, block.stop))
        return dict(zip(self.markers, ids, strict=True))

    @cached_property
    def _markers_by_id(self) -> dict[int, str]:
        return {token: marker for marker, token in self._marker_ids.items()}

    @cached_property
    def _codebooks(self) -> dict[str, tuple[Block, ...]]:
        names: dict[str, list[Block]] = {}
        for block in self.blocks:
            if "." in block.name:
                names.setdefault(block.name.rpartition(".")[0], []).append(block)
        return {name: tuple(blocks) for name, blocks in names.items()}

    @cached_property
    def _offsets(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {
            name: (
                np.array([block.start for block in blocks], dtype=np.int32),
                np.array([block.size for block in blocks], dtype=np.int32),
            )
            for name, blocks in self._codebooks.items()
        }


def voice_marker(name: str) -> str:
    """The marker of a voice: `[voice:NAME]`."""
    return f"[voice:{name}]"


def template_markers(templates: Iterable[str]) -> set[str]:
    """The markers, with brackets, that templates use."""
    return {marker for template in templates for marker in _MARKER.findall(template)}


def build_vocabulary(
    text_tokenizer: Any,
    streams: Mapping[str, CodeSpace],
    grammar: GrammarConfig,
    voices: Iterable[str],
    base: Vocabulary | None = None,
) -> Vocabulary:
    """The vocabulary of a run. Names are sorted, so the order of keys in a recipe does not matter.

    With `base`, that of the model whose training goes on, it is `base` with what it lacks appended. Raises InputError
    where the text tokenizer has a token that is spelt like a marker or a code.
    """
    used = template_markers(grammar.templates.values())
    used = used.union(*(form.markers() for form in grammar.formats.values())) - {PAD, EOS}
    markers = (PAD, EOS, *sorted(used), *(voice_marker(name) for name in sorted(set(voices))))
    if base is not None:
        wider = base.extended(markers, streams)
        _check_spelling(_spellings(wider) - _spellings(base), text_tokenizer)
        return wider
    sizes = [(MARKER_BLOCK, len(markers))]
    for name, info in sorted(streams.items()):
        sizes += [(f"{name}.{codebook}", info.codebook_size) for codebook in range(info.num_codebooks)]
    made = Vocabulary(_consecutive((Block(TEXT_BLOCK, 0, len(text_tokenizer)),), sizes), markers)
    _check_spelling(_spellings(made), text_tokenizer)
    return made


def _consecutive(blocks: Sequence[Block], sizes: Iterable[tuple[str, int]]) -> tuple[Block, ...]:
    """`blocks`, and one of each size after them."""
    found = list(blocks)
    for name, size in sizes:
        found.append(Block(name, found[-1].stop, size))
    return tuple(found)


def _spellings(vocabulary: Vocabulary) -> set[str]:
    """The markers, and the first code of each codebook."""
    return {
        *vocabulary.markers,
        *(vocabulary.token_name(block.start) for block in vocabulary.blocks if "." in block.name),
    }


def _check_spelling(spellings: set[str], text_tokenizer: Any) -> None:
    taken = sorted(spellings & set(getattr(text_tokenizer, "get_vocab", dict)()))
    if taken:
        raise InputError(
            f"{taken} are tokens of the text tokenizer already: spell these markers in another way, e.g. "
            f"{['[my-' + name.strip('[]<>|') + ']' for name in taken]}"
        )


def _is_voice(marker: str) -> bool:
    return marker.startswith("[voice:")
