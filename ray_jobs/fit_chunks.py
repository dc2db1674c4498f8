"""Utterances through Ray tasks, chunk by chunk, for the fit of a tokenizer."""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from data.manifest import Utterance
from data.quarantine import PassedOver
from ray_jobs.bounded_wait import result_of
from ray_jobs.tokenize_plan import runs_of
from ray_jobs.tokenize_watch import StalledError

log = logging.getLogger("antiphon")

# (utterances, manifest, longest recording in seconds, argument) -> a result for each that could be read, and the rest
ChunkFunction = Callable[[list[Utterance], str, float, Any], tuple[list[Any], PassedOver]]


@dataclass(frozen=True)
class Source:
    """Where utterances come from, and in which order: drawn by the seed, so that the first few stand for all."""

    utterances: Sequence[Utterance]
    manifest_path: str
    max_duration_s: float
    seed: int
    num_workers: int
    stall_s: float
    num_gpus: float = 0.0  # of a task that encodes

    def drawn(self) -> list[Utterance]:
        """The utterances in that order."""
        drawn = sorted(self.utterances, key=lambda utterance: utterance.id)
        random.Random(self.seed).shuffle(drawn)
        return drawn


def over_chunks(source: Source, function: ChunkFunction, argument: Any, num_gpus: float = 0.0) -> Iterator[Any]:
    """Results in an order that the number of workers has no part in; chunks are computed as they are asked for.

    Raises StalledError where none gets done for source.stall_s.
    """
    task = ray.remote(num_cpus=1, num_gpus=num_gpus)(function)
    chunks = runs_of(source.drawn())
    running: list[Any] = []
    passed = PassedOver()
    try:
        while True:
            while len(running) <= source.num_workers and (chunk := next(chunks, None)):
                running.append(task.remote(chunk, source.manifest_path, source.max_duration_s, argument))
            if not running:
                return
            results, passed_of_chunk = result_of(running[0], running, source.stall_s, f"Task({function.__name__})")
            running.pop(0)
            passed.merge(passed_of_chunk)
            yield from results
    except StalledError:
        for reference in running:
            ray.cancel(reference, force=True)
        raise
    finally:
        log.info("fit_tokenizer: %s", passed)
