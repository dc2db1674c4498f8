"""How long every record is under every task, as far as that is known before a visit; and the order of the ids.

Arrays over the records of a stream (N,): int32 lengths per task, 0 where the task does not accept the record, UNKNOWN
where it does and its length is another at every visit, or has not been measured yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.grammar.base import Grammar

UNKNOWN = -1


@dataclass(frozen=True)
class Lengths:
    """`by_id`: indices of the records in the order of their ids, int32 (N,); `by_task`: task -> lengths."""

    by_id: np.ndarray
    by_task: Mapping[str, np.ndarray]

    def members(self, task: str) -> np.ndarray:
        """Indices of the records that a task accepts, in the order of their ids."""
        return self.by_id[self.by_task[task][self.by_id] != 0]


def lengths_of(records: Sequence[Any], grammars: Mapping[str, Grammar]) -> Lengths:
    """Which records each task accepts; how long they are is measured when they are first drawn."""
    by_id = np.array(sorted(range(len(records)), key=lambda index: records[index].id), dtype=np.int32)
    accepted = {
        task: np.array([UNKNOWN if grammar.accepts(record) else 0 for record in records], dtype=np.int32)
        for task, grammar in grammars.items()
    }
    return Lengths(by_id, accepted)
