"""Checkpoints written behind the training: a copy in host memory, a thread that writes it, the manifest last."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from data import storage
from data.errors import RunError
from model.checkpoint import Snapshot, take_snapshot
from model.checkpoint_files import MANIFEST, delete_checkpoint, no_one, shard_bytes, shard_name, write_shard

log = logging.getLogger("antiphon")


class CheckpointError(RunError):
    """A checkpoint could not be written. Those before it are as they were."""


class CheckpointWriter:
    """Saves an engine's state, at most one checkpoint at a time. All workers must make the same calls.

    `save` returns once the state is copied; what goes wrong afterwards is raised, on all workers alike, by the next
    `save` or `finish`. `after` is called on rank 0 with the folder of a whole checkpoint, `alive` as the writing gets
    on. Every wait ends after `timeout_s`; for other workers, as that of the constructor, with a RuntimeError of
    torch.distributed.
    """

    def __init__(
        self,
        timeout_s: float,
        after: Callable[[str], None] = lambda folder: None,
        alive: Callable[[], None] = no_one,
    ) -> None:
        self._timeout_s, self._after, self._alive = timeout_s, after, alive
        # Of its own, so that the thread's messages and the training's never meet.
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        self._pending: Future[str] | None = None
        self._folder = ""

    def save(self, folder: str, engine: Any, facts: dict[str, Any]) -> None:
        """Begin a checkpoint of the state as it is now. Raises CheckpointError when the one before failed."""
        self.finish()
        snapshot = take_snapshot(engine, facts)
        self._folder, self._pending = folder, Future()
        threading.Thread(target=self._run, args=(folder, snapshot, self._pending), daemon=True).start()

    def finish(self) -> str | None:
        """Wait for the checkpoint in flight and give its folder; None when none is. Raises CheckpointError."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        try:
            return pending.result(self._timeout_s)
        except NotYetError:
            raise CheckpointError(
                f"{self._folder} is not written after {self._timeout_s:.0f} s: does its storage answer?"
            ) from None

    def _run(self, folder: str, snapshot: Snapshot, result: "Future[str]") -> None:
        try:
            self._commit(folder, snapshot)
            result.set_result(folder)
        except BaseException as error:
            result.set_exception(error)

    def _commit(self, folder: str, snapshot: Snapshot) -> None:
        mine = _attempt(lambda: _write(folder, snapshot, self._alive))
        shards = self._agree(folder, {**mine, "needed": shard_bytes(snapshot.tensors)})
        manifest = {**snapshot.manifest, "shards": [shard["done"] for shard in shards]}
        rank = dist.get_rank()
        path = storage.join(folder, MANIFEST)
        self._agree(folder, _attempt(lambda: storage.write_json(path, manifest)) if rank == 0 else {"error": None})
        if rank == 0 and (error := _attempt(lambda: self._after(folder))["error"]):
            log.warning("train: %s is saved, but older ones could not be cleared away: %s", folder, error)

    def _agree(self, folder: str, mine: dict[str, Any]) -> list[dict[str, Any]]:
        """What every worker has to say. Raises CheckpointError on all when one of them failed, RuntimeError of
        torch.distributed where one does not answer: other workers may do better."""
        answers: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(answers, mine, group=self._group)
        failed = [(rank, answer["error"]) for rank, answer in enumerate(answers) if answer["error"]]
        if failed:
            if dist.get_rank() == 0:
                _attempt(lambda: delete_checkpoint(folder))  # its shards take the room that is missing
            needed = sum(answer.get("needed", 0) for answer in answers)
            raise CheckpointError(
                f"cannot save {folder} (about {needed / 2**20:.1f} MiB): {failed[0][1]} (rank {failed[0][0]}); "
                "the checkpoints before it are whole: make room or mend the storage, then run this again"
            )
        return answers


def _write(folder: str, snapshot: Snapshot, alive: Callable[[], None]) -> dict[str, int]:
    path = storage.join(folder, shard_name(dist.get_rank()))
    return asdict(write_shard(path, snapshot.tensors, {"rng": snapshot.rng}, alive))


def _attempt(act: Callable[[], Any]) -> dict[str, Any]:
    """{"done": result, "error": None}, or {"error": text}: an error must be told to all, not kept by one."""
    try:
        return {"done": act(), "error": None}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
