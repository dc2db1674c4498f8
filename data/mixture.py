"""The order of a source's documents, draws that depend on nothing else, and the table of what a mixture came to.

A source is one task over the records that its grammar accepts. Every draw is a function of (seed, source, utterance
id, visit) alone, through a keyed hash: no generator is carried from one draw to the next.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

BLOCK = 4096  # places of an order that are Python's integers at a time


def draw_bytes(seed: int, source: str, utterance: str, visit: int) -> bytes:
    """32 random bytes of one visit to one utterance."""
    return hashlib.blake2b(f"{seed}\0{source}\0{utterance}\0{visit}".encode(), digest_size=32).digest()


def draw_rng(seed: int, source: str, utterance: str, visit: int) -> np.random.Generator:
    """The generator of one visit to one utterance (Philox, a counter-based one)."""
    key = int.from_bytes(draw_bytes(seed, source, utterance, visit)[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


class EpochOrder:
    """The order of one source's records: epoch after epoch, each in its own permutation, which depends on
    (seed, source, epoch) and on the records' order by id, not on the order that the store lists them in.

    `members_N` are the records' indices in the order of their ids.
    """

    def __init__(self, seed: int, source: str, members_N: np.ndarray) -> None:
        self._seed, self._source, self._members_N = seed, source, np.asarray(members_N)
        self.seek(0)

    def seek(self, drawn: int) -> None:
        """Go on as if `drawn` records had been drawn."""
        self.drawn = drawn
        self._epoch = drawn // len(self._members_N) - 1
        self._order_N = self._members_N[:0]
        self._block: list[int] = []
        self._first = drawn - drawn % len(self._members_N)  # draws before the epoch of _order_N
        self._start = drawn  # draws before _block

    def next(self) -> tuple[int, int]:
        """(index of the record, visit): the visit is the epoch's number."""
        place = self.drawn - self._start
        if place == len(self._block):
            self._read_on()
            place = 0
        self.drawn += 1
        return self._block[place], self._epoch

    def _read_on(self) -> None:
        """The next block of the order as Python's integers: whole, an order takes eight times an array's memory."""
        size = len(self._members_N)
        if not len(self._order_N) or self.drawn == self._first + size:
            self._epoch = self.drawn // size
            self._first = self._epoch * size
            rng = draw_rng(self._seed, self._source, "", self._epoch)
            self._order_N = rng.permutation(self._members_N)  # members[permutation(size)], without its integers
        self._start = self.drawn
        place = self.drawn - self._first
        self._block = self._order_N[place : place + BLOCK].tolist()


class Drawn(Protocol):
    """A document as the table counts it; `start` is above 0 for the later parts of one that was split."""

    @property
    def source(self) -> str: ...
    @property
    def record(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def start(self) -> int: ...


@dataclass(frozen=True)
class MixtureRow:
    """One line of the table "asked / got / repeated": shares (of the tokens, or of the samples), how often documents
    came again, and what else befell the source: documents too long for a row that were dropped or split, and the
    step of the phase at which its cap of epochs was reached."""

    source: str
    asked: float
    got: float
    tokens: int
    documents: int
    repeated: int
    epochs: float
    dropped: int = 0
    split: int = 0
    ended_at_step: int | None = None


def mixture_table(
    asked: Mapping[str, float], sizes: Mapping[str, int], drawn: Iterable[Drawn], unit: str = "tokens"
) -> list[MixtureRow]:
    """What `drawn` documents amount to; `sizes` are the records of every source; `unit`: what shares are taken of."""
    tokens: Counter[str] = Counter()
    seen: dict[str, Counter[int]] = {source: Counter() for source in asked}
    for document in drawn:
        tokens[document.source] += document.num_tokens
        seen[document.source][document.record] += not document.start
    documents = {source: counts.total() for source, counts in seen.items()}
    amounts: Mapping[str, int] = documents if unit == "samples" else tokens
    total = max(1, sum(amounts.values()))
    return [
        MixtureRow(
            source=source,
            asked=share,
            got=amounts[source] / total,
            tokens=tokens[source],
            documents=documents[source],
            repeated=sum(count - 1 for count in seen[source].values() if count),
            epochs=documents[source] / max(1, sizes[source]),
        )
        for source, share in asked.items()
    ]


def format_mixture_table(table: Sequence[MixtureRow]) -> str:
    """The table as text for a log; what befell no source has no column."""
    names = ["tokens", "documents", "repeated", "epochs"]
    names += [name for name in ("dropped", "split") if any(getattr(row, name) for row in table)]
    lines = [f"{'source':24} {'asked':>7} {'got':>7}" + "".join(f" {name:>10}" for name in names)]
    for row in table:
        numbers = [row.epochs if name == "epochs" else getattr(row, name) for name in names]
        cells = [f" {number:10.2f}" if isinstance(number, float) else f" {number:10d}" for number in numbers]
        ended = "" if row.ended_at_step is None else f"  all its epochs by step {row.ended_at_step}"
        lines.append(f"{row.source:24} {row.asked:7.2%} {row.got:7.2%}" + "".join(cells) + ended)
    return "\n".join(lines)
