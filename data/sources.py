"""The records behind a phase's sources: which each task shows, how long they are at a visit, and what is shown then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data.errors import InputError
from data.grammar.base import Grammar
from data.grammar.crop import CropCurriculum, Span
from data.grammar.joined import joining
from data.lengths import Lengths, lengths_of
from data.mixture import draw_rng
from data.planning import PlannedDocument
from data.store import Record


class Sources:
    """Tasks over training records, in any order. `lengths`: what is known of them, found out here where not given.

    `members`: indices of every task's records in the order of their ids. Raises InputError for a task without any.
    """

    def __init__(
        self,
        records: Sequence[Record],
        grammars: Mapping[str, Grammar],
        tasks: Iterable[str],
        crops: CropCurriculum,
        seed: int,
        lengths: Lengths | None = None,
    ) -> None:
        self.records = records
        self.grammars = {task: grammars[task] for task in tasks}
        self._crops, self._seed = crops, seed
        self._dropped: dict[tuple[str, int], int] = {}
        known = lengths or lengths_of(records, self.grammars)
        self._lengths = known.by_task
        self.members = {task: self._taken(known.members(task), task) for task in self.grammars}

    @property
    def splittable(self) -> frozenset[str]:
        """Tasks of which a part of a sequence stands for itself."""
        return frozenset(task for task, grammar in self.grammars.items() if grammar.splittable)

    @property
    def joining(self) -> frozenset[str]:
        """Tasks whose documents in a row are joined to one."""
        return frozenset(task for task, grammar in self.grammars.items() if joining(grammar))

    @property
    def pad_id(self) -> int:
        """The id that fills rows up."""
        return next(iter(self.grammars.values())).pad_id

    @property
    def dropped_codes(self) -> dict[str, int]:
        """Codes of ragged last frames, which were not shown, of the records that each task has rendered so far."""
        found: Counter[str] = Counter()
        for (task, _), count in [*self._dropped.items()]:
            found[task] += count
        return dict(found)

    def measure(self, task: str, index: int, visit: int, step: int) -> tuple[int, Span | None]:
        """Tokens of a visit's document, and the words that the record is cut to."""
        if not self._crops.probability and (known := self._known_length(task, index)) > 0:
            return known, None
        grammar, record = self.grammars[task], self.records[index]
        span = self._crops.span(grammar, record, visit, step)
        if span is None and (known := self._known_length(task, index)) > 0:
            return known, None
        num_tokens = grammar.measure(self._crops.crop(record, span), self._rng(task, record, visit))
        if span is None and not grammar.draws:
            self._lengths[task][index] = num_tokens
        return num_tokens, span

    def tokens(self, document: PlannedDocument) -> tuple[np.ndarray, np.ndarray]:
        """ids_T and loss_mask_T of a planned document. Raises InputError where it is not as long as was planned."""
        grammar, record = self.grammars[document.source], self.records[document.record]
        if dropped := grammar.dropped_codes(record):
            self._dropped[document.source, document.record] = dropped
        rng = self._rng(document.source, record, document.visit)
        ids, loss_mask = grammar.tokens(self._crops.crop(record, document.span), rng)
        part = slice(document.start, document.start + document.num_tokens)
        if len(ids[part]) != document.num_tokens:
            raise InputError(
                f"task {document.source!r}: record {record.id!r} has {len(ids) - document.start} tokens, "
                f"{document.num_tokens} were planned: what was measured is of another store or recipe, measure again"
            )
        return ids[part], loss_mask[part]

    def _rng(self, task: str, record: Any, visit: int) -> np.random.Generator | None:
        return draw_rng(self._seed, task, record.id, visit) if self.grammars[task].draws else None

    def _known_length(self, task: str, index: int) -> int:
        """Tokens of a record under a task, whatever the visit; UNKNOWN where they differ or are not measured yet."""
        return self._lengths[task].item(index)

    def _taken(self, members: np.ndarray, task: str) -> np.ndarray:
        if not len(members):
            raise InputError(
                f"none of the {len(self.records)} training records has what task {task!r} shows: "
                "give its group the weight 0 in train.phases[*].weights, or add such records to the corpus"
            )
        return members
