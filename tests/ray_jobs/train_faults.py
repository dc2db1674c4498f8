"""Faults that are put into a worker of a tiny training, each a name with where it strikes."""

import errno
import os
import random
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data import storage
from data.errors import InputError
from data.stream import TokenStream
from model import checkpoint_writer
from model.train_step import StepLoss
from ray_jobs import train_loop
from ray_jobs.train_loop import TrainLoop
from ray_jobs.train_parts import load_parts
from ray_jobs.train_stop import STOP, StopRequest
from tests.ray_jobs.tiny_store import tiny_recipe

LIMIT_BYTES = 20_000  # less than a shard of the tiny model, more than anything else it writes


@dataclass(frozen=True)
class Fault:
    """`kind` strikes worker `rank` at its `count`-th chance (1 is the first)."""

    kind: str
    rank: int
    count: int


def train_with(runs_dir: str, inputs: dict[str, str], folder: str, fault: Fault | None, *overrides: str) -> None:
    """One worker's training with a fault in it."""
    parts = load_parts(tiny_recipe(Path(runs_dir), *overrides), inputs)
    if fault is not None and torch.distributed.get_rank() == fault.rank:
        _KINDS[fault.kind](fault.count, folder)
    TrainLoop(parts, folder, lambda checkpoint, metrics: None).run()


def random_kill(seed: int, world_size: int, last_step: int) -> Fault:
    """Some worker, killed in some step or in some save."""
    rng = random.Random(seed)
    kind = rng.choice(["killed in a step", "killed before its shard", "killed after its shard"])
    return Fault(kind, rng.randrange(world_size), rng.randint(1, last_step if "step" in kind else 3))


def _at(count: int, owner: Any, name: str, act: Callable[[], None], after: bool = False) -> None:
    """Have the `count`-th call of `owner.name` do `act` first, or afterwards."""
    real, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def call(*arguments: Any, **named: Any) -> Any:
        strikes = next(calls) == count
        if strikes and not after:
            act()
        result = real(*arguments, **named)
        if strikes and after:
            act()
        return result

    setattr(owner, name, call)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a shard")


def _refuse() -> None:
    raise InputError("train.deepspeed: no such thing")


def _hang() -> None:
    threading.Event().wait()


def _spoil(count: int, folder: str) -> None:
    real, calls = StepLoss.forward, iter(range(1, 1_000_000))

    def forward(self: StepLoss, *arguments: Any) -> Any:
        loss, part_sums_K2 = real(self, *arguments)
        if next(calls) == count:
            loss = loss * float("nan")
            part_sums_K2[int(part_sums_K2[:, 1].nonzero()[0]), 0] = float("nan")
        return loss, part_sums_K2

    StepLoss.forward = forward  # type: ignore[method-assign]


def _limit(count: int, folder: str) -> None:
    _at(count, train_loop, "run_step", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES)))


def _ask_to_stop(count: int, folder: str) -> None:
    """The request is seen before step `count` ends, so that step `count` + 1 is the last one."""
    requests: list[StopRequest] = []

    class Remembered(StopRequest):
        def __init__(self, folder: str) -> None:
            requests.append(self)
            super().__init__(folder)

    def ask() -> None:
        storage.write_json(storage.join(folder, STOP), {})
        assert requests[0]._seen.wait(60)

    train_loop.StopRequest = Remembered  # type: ignore[misc]
    _at(count, train_loop, "run_step", ask)


_KINDS: dict[str, Callable[[int, str], None]] = {
    "frozen from the start": lambda count, folder: _freeze(),
    "killed in a step": lambda count, folder: _at(count, train_loop, "run_step", _kill),
    "killed before its shard": lambda count, folder: _at(count, checkpoint_writer, "write_shard", _kill),
    "killed after its shard": lambda count, folder: _at(count, checkpoint_writer, "write_shard", _kill, after=True),
    "frozen in a step": lambda count, folder: _at(count, train_loop, "run_step", _freeze),
    "hung in its data": lambda count, folder: _at(count, TokenStream, "rows", _hang),
    "refuses what it was given": lambda count, folder: _at(count, train_loop, "start_engine", _refuse),
    "no space for its numbers": lambda count, folder: _at(count, storage, "write_jsonl", _no_space),
    "no space for a phase": lambda count, folder: _at(count, train_loop, "export_checkpoint", _no_space),
    "no space for its shard": lambda count, folder: _at(count, checkpoint_writer, "write_shard", _no_space),
    "short file limit": _limit,
    "loss is no number": _spoil,
    "asked to stop": _ask_to_stop,
}
