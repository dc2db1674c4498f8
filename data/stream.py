"""The token stream of a training phase: a pure function of (records, mixture, seed).

Steps are planned from lengths alone, by every rank alike; each rank renders only its own rows. So the global batch of
a step is the same for any number of workers and after a resume at any step.

Shapes: B = rows, T = tokens of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from data.errors import InputError
from data.grammar.base import Grammar
from data.lengths import Lengths
from data.mixture import MixtureRow, PhaseMixture, draw_rng
from data.packing import Batch, BestFitPacker, PackedDocument, pack_batch
from data.planning import PlannedDocument, Planner, Row
from data.store import Record, StreamInfo


class TokenStream:
    """Packed batches of one phase; steps count from 0 within the phase. Arguments and errors are Planner's."""

    def __init__(
        self,
        records: Sequence[Record],
        grammars: Mapping[str, Grammar],
        groups: Mapping[str, Sequence[str]],
        phase: PhaseMixture,
        phase_steps: int,
        sequence_length: int,
        global_batch_rows: int,
        seed: int,
        streams: Mapping[str, StreamInfo] | None = None,
        lengths: Lengths | None = None,
    ) -> None:
        self.planner = Planner(
            records, grammars, groups, phase, phase_steps, sequence_length, global_batch_rows, seed, streams, lengths
        )
        self._grammars, self._phase, self._seed = grammars, phase, seed
        self.sequence_length, self.global_batch_rows = sequence_length, global_batch_rows

    @property
    def num_dropped(self) -> dict[str, int]:
        """Documents of each source that were too long for a row in the steps planned so far."""
        return self.planner.num_dropped

    def plan(self, step: int) -> list[Row]:
        """The rows of a step's global batch. Steps in order cost least."""
        return self.planner.plan(step)

    def rows(self, step: int, rank: int = 0, world_size: int = 1, padded_rows: int | None = None) -> Batch:
        """The rows rank, rank + world_size, … of a step, filled up with empty rows to `padded_rows`.

        `padded_rows` is the same on all ranks: data.packing.rows_per_rank, by default ceil(G / world_size).
        """
        mine = self.plan(step)[rank::world_size]
        num_rows = padded_rows or -(-self.global_batch_rows // world_size)
        documents = [[self._render(document) for document in row] for row in mine]
        return pack_batch(documents, num_rows, self.sequence_length, self._pad_id)

    def batch_hash(self, step: int) -> str:
        """Fingerprint of the ids of a step's global batch: 16 hex digits of SHA-256, the same for any rank."""
        ids_BT = self.rows(step).ids_BT
        return hashlib.sha256(ids_BT.astype("<i8").tobytes()).hexdigest()[:16]

    def mixture_table(self, num_steps: int) -> list[MixtureRow]:
        """What the first `num_steps` steps show of each source: asked, got, repeated."""
        return self.planner.mixture_table(num_steps)

    @property
    def _pad_id(self) -> int:
        return next(self._grammars[source].pad_id for source in self.planner.weights)

    def _render(self, document: PlannedDocument) -> PackedDocument:
        grammar, record = self._grammars[document.source], self.planner.record(document.record)
        rng = draw_rng(self._seed, document.source, record.id, document.visit) if grammar.draws else None
        ids, loss_mask = grammar.tokens(self.planner.crops.crop(record, document.span), rng)
        weight = self._phase.loss_weights.get(document.source, 1.0)
        return PackedDocument(ids, loss_mask, weight, document.source)


def evaluation_rows(
    records: Sequence[Record], grammar: Grammar, sequence_length: int, num_rows: int, seed: int = 0
) -> Batch:
    """At most `num_rows` packed rows of held-out records of one task: fixed, in the order of ids, each record once.

    Target weights are 1. Records that the grammar does not accept or that fit no row are left out. Raises InputError
    when nothing is left.
    """
    packer: BestFitPacker[PackedDocument] = BestFitPacker(sequence_length)
    for record in _evaluated(records, grammar):
        ids, loss_mask = grammar.tokens(record, draw_rng(seed, grammar.name, record.id, 0))
        if len(ids) <= sequence_length:
            packer.add(len(ids), PackedDocument(ids, loss_mask, 1.0, grammar.name))
        if packer.pending_tokens >= num_rows * sequence_length:
            break
    rows = [row for row in (packer.next_row() for _ in range(num_rows)) if row]
    if not rows:
        raise InputError(f"task {grammar.name!r}: no held-out record fits a row of {sequence_length} tokens")
    return pack_batch(rows, len(rows), sequence_length, grammar.pad_id)


def _evaluated(records: Sequence[Record], grammar: Grammar) -> Iterator[Record]:
    return (record for record in sorted(records, key=lambda record: record.id) if grammar.accepts(record))
