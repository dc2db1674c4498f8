"""Which document comes next: shares of the tokens asked of every source, and draws that depend on nothing else.

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

from data.errors import InputError


class PhaseMixture(Protocol):
    """The part of a training phase that the token stream reads (model.train_config.PhaseConfig has it)."""

    @property
    def name(self) -> str: ...
    @property
    def weights(self) -> Mapping[str, float]: ...
    @property
    def loss_weights(self) -> Mapping[str, float]: ...
    @property
    def crop_probability(self) -> float: ...
    @property
    def crop_end_fraction(self) -> float: ...


def draw_bytes(seed: int, source: str, utterance: str, visit: int) -> bytes:
    """32 random bytes of one visit to one utterance."""
    return hashlib.blake2b(f"{seed}\0{source}\0{utterance}\0{visit}".encode(), digest_size=32).digest()


def draw_rng(seed: int, source: str, utterance: str, visit: int) -> np.random.Generator:
    """The generator of one visit to one utterance (Philox, a counter-based one)."""
    key = int.from_bytes(draw_bytes(seed, source, utterance, visit)[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def source_weights(groups: Mapping[str, Sequence[str]], weights: Mapping[str, float]) -> dict[str, float]:
    """Share of the tokens of every task: a group's weight in equal parts over its tasks; zero shares are left out.

    A task in several groups gets the sum. Raises InputError for a weight whose group is unknown or empty.
    """
    shares: dict[str, float] = {}
    for group, weight in weights.items():
        if not groups.get(group):
            raise InputError(f"weights name group {group!r}, which grammar.groups lacks: choose from {sorted(groups)}")
        for task in groups[group]:
            shares[task] = shares.get(task, 0.0) + weight / len(groups[group])
    total = sum(shares.values())
    return {task: share / total for task, share in shares.items() if share > 0}


class LargestDeficit:
    """Picks the source that is furthest behind its share of the tokens: never off by more than one document each."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)
        self.tokens = dict.fromkeys(weights, 0)
        self._total = 0

    def pick(self) -> str:
        """The source to draw from next. Ties go to the larger share, then to the source named first."""
        total = self._total + 1
        return max(self.weights, key=lambda source: self.weights[source] * total - self.tokens[source])

    def add(self, source: str, num_tokens: int) -> None:
        """Account for a document drawn."""
        self.tokens[source] += num_tokens
        self._total += num_tokens


class EpochOrder:
    """The order of one source's records: epoch after epoch, each in its own permutation, which depends on
    (seed, source, epoch) and on the set of ids, not on the order that the store lists them in.

    `members` are the records' indices in the order of their ids, an array (N,).
    """

    def __init__(self, seed: int, source: str, members: np.ndarray) -> None:
        self._seed, self._source, self._members = seed, source, members
        self._epoch = -1
        self._order = members[:0]
        self._position = 0

    def next(self) -> tuple[int, int]:
        """(index of the record, visit): the visit is the epoch's number."""
        if self._position == len(self._order):
            self._epoch += 1
            rng = draw_rng(self._seed, self._source, "", self._epoch)
            self._order = self._members[rng.permutation(len(self._members))]
            self._position = 0
        self._position += 1
        return int(self._order[self._position - 1]), self._epoch


@dataclass(frozen=True)
class MixtureRow:
    """One line of the table "asked / got / repeated": shares of the tokens, and how often documents came again."""

    source: str
    asked: float
    got: float
    tokens: int
    documents: int
    repeated: int
    epochs: float


def mixture_table(
    weights: Mapping[str, float], sizes: Mapping[str, int], drawn: Iterable[tuple[str, int, int]]
) -> list[MixtureRow]:
    """What `drawn` documents (source, record, tokens) amount to; `sizes` are the utterances of every source."""
    tokens: Counter[str] = Counter()
    seen: dict[str, Counter[int]] = {source: Counter() for source in weights}
    for source, record, num_tokens in drawn:
        tokens[source] += num_tokens
        seen[source][record] += 1
    total = max(1, sum(tokens.values()))
    return [
        MixtureRow(
            source=source,
            asked=asked,
            got=tokens[source] / total,
            tokens=tokens[source],
            documents=seen[source].total(),
            repeated=seen[source].total() - len(seen[source]),
            epochs=seen[source].total() / max(1, sizes[source]),
        )
        for source, asked in weights.items()
    ]


def format_mixture_table(table: Iterable[MixtureRow]) -> str:
    """The table as text for a log."""
    lines = [f"{'source':24} {'asked':>7} {'got':>7} {'tokens':>10} {'documents':>10} {'repeated':>9} {'epochs':>7}"]
    lines += [
        f"{row.source:24} {row.asked:7.2%} {row.got:7.2%} {row.tokens:10d} {row.documents:10d} {row.repeated:9d} "
        f"{row.epochs:7.2f}"
        for row in table
    ]
    return "\n".join(lines)
