"""prepare's optional steps over a whole corpus, on Ray: parts in, parts out, each kept as soon as it is done."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from data import storage
from data.corpus.config import BroughtCorpus
from data.errors import InputError
from data.frozen import result_fields
from data.manifest import Utterance
from data.quarantine import quarantine_row
from model.audio_tokenizers.brought import content_id
from ray_jobs.bounded_wait import ready_of, result_of
from ray_jobs.prepare_part import Outcome, cached_steps
from ray_jobs.session import start_ray
from ray_jobs.tokenize_plan import runs_of

log = logging.getLogger("antiphon")

STEPS = "steps"
OPERATOR = "Task(run_part)"
_LOST = (WorkerCrashedError, OutOfMemoryError, NodeDiedError)  # Ray has no common name for a process that is gone


def has_steps(corpus: BroughtCorpus) -> bool:
    """Whether there is anything to do."""
    return corpus.alignment is not None or corpus.segmentation is not None


def step_fields(corpus: BroughtCorpus) -> dict[str, Any]:
    """What of the steps' configuration changes the result: a model on this storage by its content, not its path."""
    if corpus.alignment is None:
        return {}
    known = result_fields(corpus.alignment)
    if storage.exists(corpus.alignment.path):
        known["path"] = content_id(corpus.alignment.path)
    return {"alignment": known}


def run_steps(
    corpus: BroughtCorpus, utterances: Sequence[Utterance], folder: str, stall_s: float, name: str = ""
) -> Outcome:
    """Word times and segments of `utterances`, whose relative paths count from `folder`, in their order.

    A part that is done lies in `folder`/steps/`name`, and a second run takes it from there. A file that kills the
    process which reads it is quarantined as `crash`. Raises InputError, e.g. for an aligner that is none, and
    StalledError where no part gets done for `stall_s`.
    """
    parts = list(runs_of(utterances))
    keys = [storage.hash_json([utterance.to_row() for utterance in part]) for part in parts]
    place = storage.join(folder, STEPS, name) if name else storage.join(folder, STEPS)
    paths = [storage.join(place, f"part-{index:05d}.json") for index in range(len(parts))]
    pending = [index for index in range(len(parts)) if not _is_done(paths[index], keys[index])]
    log.info("prepare: word times and cutting, %d of %d parts to do", len(pending), len(parts))
    if pending:
        start_ray(dashboard=False)
        _Pool(corpus, storage.join(folder, "manifest.jsonl"), stall_s).run(parts, pending, paths, keys)
    whole = Outcome()
    for path in paths:
        whole.add(Outcome.from_json(storage.read_json(path)["outcome"]))
    return _without_duplicates(whole)


def _is_done(path: str, key: str) -> bool:
    return storage.exists(path) and storage.read_json(path)["key"] == key


class _Pool:
    """As many tasks at a time as the recipe has workers."""

    def __init__(self, corpus: BroughtCorpus, manifest_path: str, stall_s: float) -> None:
        self.stall_s = stall_s
        alignment = corpus.alignment
        if alignment and storage.exists(alignment.path):  # workers have working directories of their own
            alignment = alignment.model_copy(update={"path": storage.absolute(alignment.path)})
        self.arguments = (manifest_path, alignment, corpus.segmentation)
        self.num_workers = corpus.step_workers
        gpus = corpus.alignment.num_gpus if corpus.alignment else 0.0
        self.task = ray.remote(run_part).options(num_cpus=1, num_gpus=gpus or None, max_retries=0)

    def run(self, parts: list[list[Utterance]], pending: list[int], paths: list[str], keys: list[str]) -> None:
        """Write the outcome of every pending part."""
        started, done_s = time.monotonic(), 0.0
        total_s = sum(utterance.duration or 0.0 for index in pending for utterance in parts[index])
        waiting, running = deque(pending), dict[Any, int]()
        while waiting or running:
            while waiting and len(running) < self.num_workers:
                index = waiting.popleft()
                running[self._submit(parts[index])] = index
            for reference in ready_of(list(running), self.stall_s, OPERATOR):
                index = running.pop(reference)
                try:
                    outcome = self._result(reference)
                except _LOST:
                    outcome = self._one_by_one(parts[index])
                storage.write_json(paths[index], {"key": keys[index], "outcome": outcome})
                done_s += sum(utterance.duration or 0.0 for utterance in parts[index])
                speed = done_s / (time.monotonic() - started)
                log.info("prepare: %.2f/%.2f h read, %.0f x real time", done_s / 3600, total_s / 3600, speed)

    def _submit(self, part: list[Utterance]) -> Any:
        return self.task.remote(self.arguments, [utterance.to_row() for utterance in part])

    def _result(self, reference: Any) -> dict[str, Any]:
        try:
            return result_of(reference, [reference], self.stall_s, OPERATOR)
        except RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise InputError(str(error.cause)) from None
            raise

    def _one_by_one(self, part: list[Utterance]) -> dict[str, Any]:
        """A part in which some file has killed a worker: each utterance on its own, so that the others are kept."""
        whole = Outcome()
        for utterance in part:
            try:
                whole.add(Outcome.from_json(self._result(self._submit([utterance]))))
            except _LOST:
                whole.quarantine.append(quarantine_row(utterance, "crash", "the process that read it died"))
        return whole.to_json()


def run_part(arguments: tuple[Any, ...], rows: list[dict[str, Any]]) -> dict[str, Any]:
    return cached_steps(*arguments).run([Utterance.from_row(row) for row in rows]).to_json()


def _without_duplicates(outcome: Outcome) -> Outcome:
    """A segment's id may be the id of another recording; the first is kept, as everywhere."""
    seen: dict[str, int] = {}
    kept: list[Utterance] = []
    for utterance in outcome.utterances:
        seen[utterance.id] = seen.get(utterance.id, 0) + 1
        if seen[utterance.id] == 1:
            kept.append(utterance)
            continue
        detail = f"id {utterance.id!r} belongs to an earlier utterance, which is kept"
        row = quarantine_row(utterance, "duplicate_id", detail)
        outcome.quarantine.append({**row, "id": f"{utterance.id}#{seen[utterance.id]}"})
    return Outcome(kept, outcome.quarantine, outcome.unaligned)
