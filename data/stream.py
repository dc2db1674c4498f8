"""The token stream of a training phase: a pure function of (records, mixture, seed).

Steps are planned from lengths alone, by every rank alike; each rank renders only its own rows. So the global batch of
a step is the same for any number of workers and after a resume at any step.

Shapes: B = rows, T = tokens of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.config import PhaseMixture
from data.errors import InputError
from data.grammar.base import Grammar
from data.grammar.crop import CropCurriculum
from data.lengths import Lengths
from data.mixture import MixtureRow, draw_rng
from data.packing import Batch, BestFitPacker, PackedDocument, pack_batch
from data.planning import OverLong, Planner, Row
from data.rendering import Renderer
from data.shares import ShareSchedule
from data.sources import Sources
from data.store import Record, StreamInfo


class TokenStream:
    """Packed batches of one phase; steps count from 0 within the phase. Threads may share it.

    `records` are the training records, in any order; `groups` the mixture's groups of tasks; `streams` the store's
    (needed for cropping alone); `lengths` what is known of the records' lengths. Raises InputError when a weighted task
    has no record to show.
    """

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
        over_long: OverLong = "drop",
    ) -> None:
        if phase.crop_probability and streams is None:
            raise InputError("crop_probability needs the streams' frame rates: TokenStream(..., streams=store.streams)")
        self.sequence_length, self.global_batch_rows = sequence_length, global_batch_rows
        shares = ShareSchedule(groups, phase)
        crops = CropCurriculum(
            phase.crop_probability, phase.crop_end_fraction * phase_steps, seed, streams if streams is not None else {}
        )
        self.sources = Sources(records, grammars, shares.sources, crops, seed, lengths)
        self._renderer = Renderer(self.sources, phase.loss_weights)
        self.planner = Planner(
            phase, shares, self.sources.members, self.sources.measure, sequence_length, global_batch_rows, seed,
            over_long, self.sources.splittable, self.sources.joining,
        )  # fmt: skip

    @property
    def num_dropped(self) -> dict[str, int]:
        """Documents of each source that were too long for a row in the steps planned so far."""
        return self.planner.num_dropped

    def plan(self, step: int) -> list[Row]:
        """The rows of a step's global batch. Steps in order cost least."""
        return self.planner.plan(step)

    def state(self, step: int) -> dict[str, Any]:
        """What `resume` needs to go on with `step` without planning the steps before it, as JSON."""
        return self.planner.state(step)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of a stream with the same arguments."""
        self.planner.resume(state)

    def rows(self, step: int, rank: int = 0, world_size: int = 1, padded_rows: int | None = None) -> Batch:
        """The rows rank, rank + world_size, … of a step, filled up with empty rows to `padded_rows`.

        `padded_rows` is the same on all ranks: data.packing.rows_per_rank, by default ceil(G / world_size).
        """
        mine = self.plan(step)[rank::world_size]
        num_rows = padded_rows or -(-self.global_batch_rows // world_size)
        return self._renderer.batch(mine, num_rows, self.sequence_length)

    def batch_hash(self, step: int) -> str:
        """Fingerprint of the ids of a step's global batch: 16 hex digits of SHA-256, the same for any rank."""
        ids_BT = self.rows(step).ids_BT
        return hashlib.sha256(ids_BT.astype("<i8").tobytes()).hexdigest()[:16]

    def mixture_table(self, num_steps: int) -> list[MixtureRow]:
        """What the first `num_steps` steps show of each source: asked, got, repeated."""
        return self.planner.mixture_table(num_steps)


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
