"""What each step of a training phase shows: rows of documents, planned from lengths alone.

A plan is a pure function of (records, mixture, seed), the same on every rank; nothing is rendered here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.errors import InputError
from data.grammar.base import Grammar
from data.grammar.crop import CropCurriculum, Span
from data.grammar.joined import joined_for
from data.lengths import UNKNOWN, Lengths, lengths_of
from data.mixture import EpochOrder, LargestDeficit, MixtureRow, PhaseMixture, draw_rng, mixture_table, source_weights
from data.packing import BestFitPacker
from data.store import Record, StreamInfo

KEPT_STEPS = 64  # plans remembered; an earlier step is planned again from the start


@dataclass(frozen=True, slots=True)
class PlannedDocument:
    """One visit to one record (its index) under one task, of `num_tokens` tokens, cut to `span` of its words."""

    source: str
    record: int
    visit: int
    num_tokens: int
    span: Span | None = None


Row = tuple[PlannedDocument, ...]


class Planner:
    """The documents of every step of one phase; steps count from 0 within the phase.

    `records` are the training records, in any order; `groups` the mixture's groups of tasks; `streams` the store's
    (needed for cropping alone); `lengths` what is known of the records' lengths, found out here where it is not given.
    Raises InputError when a weighted task has no record that fits a row.
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
    ) -> None:
        if phase.crop_probability and streams is None:
            raise InputError("crop_probability needs the streams' frame rates: Planner(..., streams=store.streams)")
        self._grammars, self._seed = grammars, seed
        self.sequence_length, self.global_batch_rows = sequence_length, global_batch_rows
        self.weights = source_weights(groups, phase.weights)
        self.crops = CropCurriculum(
            phase.crop_probability, phase.crop_end_fraction * phase_steps, seed, streams if streams is not None else {}
        )
        self._records, self._joined = records, list[Any]()
        known = lengths or lengths_of(records, {source: grammars[source] for source in self.weights})
        self._members = {source: self._taken(known.members(source), source, phase.name) for source in self.weights}
        self._lengths = known.by_task
        self._restart()

    @property
    def num_dropped(self) -> dict[str, int]:
        """Documents of each source that were too long for a row in the steps planned so far."""
        return {source: len(records) for source, records in self._dropped.items()}

    def plan(self, step: int) -> list[Row]:
        """The rows of a step's global batch. Steps in order cost least."""
        if step not in self._plans and step < self._next_step:
            self._restart()
        while self._next_step <= step:
            self._plans[self._next_step] = self._plan_next()
            self._plans.pop(self._next_step - KEPT_STEPS, None)
            self._next_step += 1
        return self._plans[step]

    def mixture_table(self, num_steps: int) -> list[MixtureRow]:
        """What the first `num_steps` steps show of each source: asked, got, repeated."""
        drawn = (
            (document.source, document.record, document.num_tokens)
            for step in range(num_steps)
            for row in self.plan(step)
            for document in row
        )
        return mixture_table(self.weights, {source: len(found) for source, found in self._members.items()}, drawn)

    def record(self, index: int) -> Any:
        """The record of a planned document, or several of them joined."""
        return self._records[index] if index < len(self._records) else self._joined[index - len(self._records)]

    def _taken(self, members: np.ndarray, source: str, phase: str) -> np.ndarray:
        """Indices of what a task is trained on, in the order of ids: `members`, or these joined to many turns."""
        if not len(members):
            raise InputError(
                f"phase {phase!r}: none of the {len(self._records)} training records has what task {source!r} shows: "
                "give its group the weight 0 in train.phases[*].weights, or add such records to the corpus"
            )
        joined = joined_for(self._grammars[source], (self._records[i] for i in members.tolist()), self.sequence_length)
        if not joined:
            return members
        first = len(self._records) + len(self._joined)
        self._joined += joined
        return np.array(sorted(range(len(joined)), key=lambda place: joined[place].id)) + first

    def _restart(self) -> None:
        self._next_step = 0
        self._plans: dict[int, list[Row]] = {}
        self._deficit = LargestDeficit(self.weights)
        self._orders = {source: EpochOrder(self._seed, source, found) for source, found in self._members.items()}
        self._dropped: dict[str, set[int]] = {source: set() for source in self.weights}
        self._packer: BestFitPacker[PlannedDocument] = BestFitPacker(self.sequence_length)

    def _plan_next(self) -> list[Row]:
        """One step. The window holds two steps' tokens, so that nearly every gap finds a document that fits."""
        window_tokens = 2 * self.global_batch_rows * self.sequence_length
        while self._packer.pending_tokens < window_tokens:
            document = self._draw(self._deficit.pick())
            self._deficit.add(document.source, document.num_tokens)
            self._packer.add(document.num_tokens, document)
        return [tuple(self._packer.next_row()) for _ in range(self.global_batch_rows)]

    def _draw(self, source: str) -> PlannedDocument:
        """The source's next document that fits a row."""
        members, order = self._members[source], self._orders[source]
        while True:
            index, visit = order.next()
            document = self._measured(source, index, visit)
            if document.num_tokens <= self.sequence_length:
                return document
            self._dropped[source].add(index)
            if len(self._dropped[source]) == len(members):
                raise InputError(
                    f"task {source!r}: none of its {len(members)} records fits train.sequence_length="
                    f"{self.sequence_length} (one has {document.num_tokens} tokens): raise it"
                )

    def _measured(self, source: str, index: int, visit: int) -> PlannedDocument:
        if not self.crops.probability and (known := self._known_length(source, index)) > 0:
            return PlannedDocument(source, index, visit, known)
        grammar, record = self._grammars[source], self.record(index)
        span = self.crops.span(grammar, record, visit, self._next_step)
        if span is None and (known := self._known_length(source, index)) > 0:
            return PlannedDocument(source, index, visit, known)
        rng = draw_rng(self._seed, source, record.id, visit) if grammar.draws else None
        num_tokens = grammar.measure(self.crops.crop(record, span), rng)
        if span is None and not grammar.draws and index < len(self._records):
            self._lengths[source][index] = num_tokens
        return PlannedDocument(source, index, visit, num_tokens, span)

    def _known_length(self, source: str, index: int) -> int:
        """Tokens of a record under a task, whatever the visit; UNKNOWN where they differ or are not measured yet."""
        return int(self._lengths[source][index]) if index < len(self._records) else UNKNOWN
