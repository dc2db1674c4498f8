"""What each step of a training phase shows: rows of documents, planned from lengths alone.

A plan is a pure function of (records, mixture, seed), the same on every rank; nothing is rendered here, and no record
is held: sources are arrays of indices, a document's length comes from a function.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from data.config import PhaseMixture
from data.errors import InputError
from data.mixture import EpochOrder, MixtureRow, mixture_table
from data.packing import BestFitPacker
from data.shares import ShareSchedule, picker_for

KEPT_STEPS = 64  # plans remembered; an earlier step is planned again from the start
LONG_DRAWS = 1000  # too long one after another, before a task is taken to have nothing that fits

Span = tuple[int, int]
OverLong = Literal["drop", "split", "error"]
# (source, record, visit, step) -> tokens of the document, and the words that the record is cut to
Measure = Callable[[str, int, int, int], tuple[int, Span | None]]


class PlannedDocument(NamedTuple):
    """One visit to one record (its index) under one task, of `num_tokens` tokens, cut to `span` of its words; or, of a
    document that was split, the tokens from `start` on."""

    source: str
    record: int
    visit: int
    num_tokens: int
    span: Span | None = None
    start: int = 0


Row = tuple[PlannedDocument, ...]


class Planner:
    """The documents of every step of one phase; steps count from 0 within the phase. Threads may share it.

    `members`: the records of every source of `shares`, indices in the order of their ids; `splittable`: the sources
    whose over-long documents `over_long="split"` may cut, the others' are dropped; `joining`: those whose documents
    stand side by side at the end of a row, as they are to be one.
    """

    def __init__(
        self,
        phase: PhaseMixture,
        shares: ShareSchedule,
        members: Mapping[str, np.ndarray],
        measure: Measure,
        sequence_length: int,
        global_batch_rows: int,
        seed: int,
        over_long: OverLong = "drop",
        splittable: AbstractSet[str] = frozenset(),
        joining: AbstractSet[str] = frozenset(),
    ) -> None:
        self._phase, self._shares, self._members, self._measure = phase, shares, members, measure
        self.sequence_length, self.global_batch_rows, self._seed = sequence_length, global_batch_rows, seed
        self._over_long, self._splittable, self._joining = over_long, splittable, joining
        capped = {source: epochs for source, epochs in phase.max_epochs.items() if source in shares.sources}
        self._caps = {source: int(epochs * len(members[source])) for source, epochs in capped.items()}
        self._lock = threading.RLock()
        self._restart()

    @property
    def num_dropped(self) -> dict[str, int]:
        """Records of each source that were too long for a row in the steps planned here so far, and left out."""
        return {source: 0 if source in self._cut else self._num_long(source) for source in self._long}

    @property
    def num_split(self) -> dict[str, int]:
        """Records of each source that were too long for a row in the steps planned here so far, and split."""
        return {source: self._num_long(source) if source in self._cut else 0 for source in self._long}

    @property
    def ended(self) -> dict[str, int]:
        """Sources whose cap of epochs was reached in the steps planned so far, with the step."""
        return dict(self._ended)

    def plan(self, step: int) -> list[Row]:
        """The rows of a step's global batch. Steps in order cost least. Raises InputError for a step at which no
        source has anything left, and for a source of which no document fits a row."""
        with self._lock:
            self._plan_until(step)
            return self._plans[step]

    def state(self, step: int) -> dict[str, Any]:
        """What `resume` needs to go on with `step`, as JSON: it grows with a step's rows, not with the records."""
        with self._lock:
            if step != self._next_step:
                self._plan_until(step)
            shown, waiting = self._states[step] if step in self._states else self._snapshot()
            columns = [list(column) for column in zip(*waiting, strict=True)] if waiting else []
            return {"step": step, **shown, "waiting": columns}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, which must be of a planner with the same arguments."""
        with self._lock:
            self._restart()
            self._next_step = state["step"]
            self._ended.update(state["ended"])
            self._picker.restore(state["picker"])
            for source, drawn in state["drawn"].items():
                self._orders[source].seek(drawn)
            for source, record, visit, num_tokens, span, start in zip(*state["waiting"], strict=True):
                document = PlannedDocument(source, record, visit, num_tokens, tuple(span) if span else None, start)
                self._packer.add(num_tokens, document)

    def mixture_table(self, num_steps: int) -> list[MixtureRow]:
        """What the first `num_steps` steps show of each source: asked, got, repeated."""
        drawn = (document for step in range(num_steps) for row in self.plan(step) for document in row)
        sizes = {source: len(found) for source, found in self._members.items()}
        table = mixture_table(self._shares.mean(num_steps), sizes, drawn, self._phase.unit)
        dropped, split, ended = self.num_dropped, self.num_split, self.ended
        return [
            replace(row, dropped=dropped[row.source], split=split[row.source], ended_at_step=ended.get(row.source))
            for row in table
        ]

    def _restart(self) -> None:
        sources = self._shares.sources
        self._next_step = 0
        self._plans: dict[int, list[Row]] = {}
        self._states: dict[int, tuple[dict[str, Any], Sequence[PlannedDocument]]] = {}
        self._ended: dict[str, int] = {}
        self._picker = picker_for(self._phase, self._shares.at(0))
        self._orders = {source: EpochOrder(self._seed, source, self._members[source]) for source in sources}
        self._long = {source: np.zeros(int(self._members[source].max()) + 1, dtype=bool) for source in sources}
        self._cut = self._splittable if self._over_long == "split" else frozenset()
        self._packer: BestFitPacker[PlannedDocument] = BestFitPacker(self.sequence_length)

    def _plan_until(self, step: int) -> None:
        if step not in self._plans and step < self._next_step:
            self._restart()
        while self._next_step <= step:
            if self._shares.changes:
                self._reweigh()
            self._states[self._next_step] = self._snapshot()
            self._plans[self._next_step] = self._plan_next()
            for kept in (self._plans, self._states):
                kept.pop(self._next_step - KEPT_STEPS, None)
            self._next_step += 1

    def _snapshot(self) -> tuple[dict[str, Any], Sequence[PlannedDocument]]:
        drawn = {source: order.drawn for source, order in self._orders.items()}
        return {"picker": self._picker.state(), "drawn": drawn, "ended": dict(self._ended)}, self._packer.waiting

    def _plan_next(self) -> list[Row]:
        """One step. The window holds two steps' tokens, so that nearly every gap finds a document that fits."""
        packer, picker = self._packer, self._picker
        window_tokens = 2 * self.global_batch_rows * self.sequence_length
        while packer.pending_tokens < window_tokens and picker.weights:
            source = picker.pick()
            documents = self._draw(source)
            if documents:
                picker.add(source, sum([document.num_tokens for document in documents]))
                for document in documents:
                    packer.add(document.num_tokens, document)
            else:
                self._ended[source] = self._next_step
                self._reweigh()
        if not packer.pending_tokens:
            raise InputError(
                f"phase {self._phase.name!r} has nothing left to show at its step {self._next_step}: every task has "
                f"reached its max_epochs {self._phase.max_epochs}: raise one of them, or give the phase fewer steps"
            )
        return [self._arranged(packer.next_row()) for _ in range(self.global_batch_rows)]

    def _arranged(self, row: list[PlannedDocument]) -> Row:
        if self._joining:
            row.sort(key=lambda document: document.source if document.source in self._joining else "")
        return tuple(row)

    def _reweigh(self) -> None:
        """The step's shares, those of ended sources dealt out over the others; none where no other has a share."""
        shares = {name: share for name, share in self._shares.at(self._next_step).items() if name not in self._ended}
        total = sum(shares.values())
        self._picker.reweigh({name: share / total for name, share in shares.items()} if total > 0 else {})

    def _draw(self, source: str) -> list[PlannedDocument]:
        """The source's next document that fits a row, or the parts of one that does not; empty at the source's end."""
        order, cap, num_misses = self._orders[source], self._caps.get(source), 0
        while cap is None or order.drawn < cap:
            record, visit = order.next()
            num_tokens, span = self._measure(source, record, visit, self._next_step)
            if num_tokens <= self.sequence_length:
                return [PlannedDocument(source, record, visit, num_tokens, span)]
            self._long[source][record] = True
            if source in self._cut:
                document = PlannedDocument(source, record, visit, num_tokens, span)
                return split_document(document, self.sequence_length)
            num_misses += 1
            self._refuse_long(source, num_tokens, num_misses)
        return []

    def _num_long(self, source: str) -> int:
        return int(np.count_nonzero(self._long[source]))

    def _refuse_long(self, source: str, num_tokens: int, num_misses: int) -> None:
        """Raises InputError for a document too long where that was asked, and for a source of which none fits: all its
        records have been too long, and lately so many in a row that they are not so at some visits only."""
        size = len(self._members[source])
        if self._over_long == "error":
            raise InputError(
                f"task {source!r}: a document has {num_tokens} tokens, train.sequence_length is {self.sequence_length} "
                "and train.over_long is error: raise the length, or choose drop or split"
            )
        enough = min(max(size, LONG_DRAWS), self._caps.get(source, sys.maxsize))
        if num_misses % enough == 0 and self._num_long(source) == size:
            raise InputError(
                f"task {source!r}: none of its {size} records fits train.sequence_length="
                f"{self.sequence_length} (one has {num_tokens} tokens): raise it"
            )


def split_document(document: PlannedDocument, max_tokens: int) -> list[PlannedDocument]:
    """A document as successive ones of `max_tokens` tokens, the last one shorter.

    Each part begins with the last token of the one before. The first token of a document is never a target, so every
    target of the whole is a target of exactly one part.
    """
    starts = range(0, document.num_tokens - 1, max_tokens - 1)
    return [document._replace(start=start, num_tokens=min(max_tokens, document.num_tokens - start)) for start in starts]
