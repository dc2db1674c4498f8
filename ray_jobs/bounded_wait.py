"""Waiting for Ray tasks within a bound: one that never comes is an error that names it, not a hang."""

from collections.abc import Sequence
from typing import Any

import ray

from ray_jobs.tokenize_watch import StalledError


def ready_of(references: Sequence[Any], stall_s: float, operator: str, number: int = 1) -> list[Any]:
    """`number` or more of these that are done. Raises StalledError where no more than number - 1 are after `stall_s`.

    `operator` is what runs, in words.
    """
    found, _ = ray.wait(list(references), num_returns=number, timeout=stall_s)
    if len(found) < number:
        raise StalledError(
            f"{operator} has made no progress for {stall_s:g} s: {len(references) - len(found)} of {len(references)} "
            "tasks are not done. Does the cluster have the CPUs and GPUs that the recipe asks for? "
            "If it is only slow, raise tokenize.stall_s"
        )
    return found


def result_of(reference: Any, running: Sequence[Any], stall_s: float, operator: str) -> Any:
    """The result of one of `running`: as `ray.get`, as long as any of them gets done within `stall_s`.

    Raises StalledError, and what the task raised.
    """
    found = ready_of(running, stall_s, operator)
    while reference not in found:
        found = ready_of(running, stall_s, operator, len(found) + 1)
    return ray.get(reference)


def results_of(references: Sequence[Any], stall_s: float, operator: str) -> list[Any]:
    """Every result, in order. Raises like `result_of`."""
    return [result_of(reference, references, stall_s, operator) for reference in references]
