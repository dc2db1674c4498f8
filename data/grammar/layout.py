"""The layout of sequences that are the same at every visit: pieces in a fixed order, so that whole batches can be
written at once, without a call per document. A grammar that has one gives it as `layout`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Fixed:
    """Ids that every sequence has, int32."""

    ids: np.ndarray
    target: bool


@dataclass(frozen=True, slots=True)
class Codes:
    """A stream's codes as stored. Of one codebook, they become ids start, start + 1, … for codes below `size`; of
    several, by `encode` (to nothing, where they are not whole frames)."""

    stream: str
    start: int
    size: int
    encode: Callable[[np.ndarray], np.ndarray] | None
    target: bool


@dataclass(frozen=True, slots=True)
class Written:
    """What a field of the record (text, caption, speaker) is in ids, int32."""

    field: str
    encode: Callable[[Any], np.ndarray]
    target: bool


Layout = tuple[Fixed | Codes | Written, ...]


def codes_piece(vocabulary: Vocabulary, stream: str, target: bool) -> Codes:
    """The piece of a stream of a vocabulary."""
    blocks = vocabulary.codebooks(stream)

    def encode(codes: np.ndarray) -> np.ndarray:
        whole = len(codes) % len(blocks) == 0
        return vocabulary.encode_stream(stream, codes) if whole else codes[:0]

    return Codes(stream, blocks[0].start, blocks[0].size, encode if len(blocks) > 1 else None, target)


def layout_of(grammar: Any) -> Layout | None:
    """The layout of a grammar; None for one whose sequences have none."""
    return getattr(grammar, "layout", None)
