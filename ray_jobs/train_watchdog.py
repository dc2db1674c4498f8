"""A training that ends within a bounded time, whatever hangs: who waits for whom is said by name.

Each worker notes what it does; a thread tells the others through the process group's store. When a worker makes no
progress, whoever waits reads these notes. What ends one worker and no retry can mend ends all. No ray in here.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as NotYetError
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from data.errors import InputError, RunError

log = logging.getLogger("antiphon")

T = TypeVar("T")
KEY = "antiphon/progress"
END = "antiphon/end"
SILENT_TICKS = 3  # without a new note: a worker that gives no sign of life
NO_ANSWER = "rank 0 does not answer (it keeps the group's store)"
ANSWER_S = 5.0  # the store answers in milliseconds, unless who keeps it does not answer either


class StalledError(RuntimeError):
    """A worker made no progress for too long, or is gone. The message names it, and the operation it is in."""


class Progress:
    """What this worker is doing. Every `at` and every `beat` counts as progress."""

    def __init__(self) -> None:
        self.operation, self.step, self.count = "starting", 0, 0
        self.since = time.monotonic()

    def at(self, operation: str, step: int) -> None:
        """An operation begins, in step `step` of the run. All workers must go through the same ones."""
        self.operation, self.step = operation, step
        self.count += 1
        self.since = time.monotonic()

    def beat(self) -> None:
        """A piece of the operation is done. Who waits for this worker waits on."""
        self.since = time.monotonic()


def run_watched(act: Callable[[], T], progress: Progress, stall_s: float) -> T:
    """What `act` returns or raises, from a thread of its own; this thread watches it.

    Raises InputError or RunError as soon as one of the workers does, the same text everywhere. Raises StalledError when
    `progress` stands still for `stall_s`, and that of all other workers too, or when another worker is lost.
    """
    tick_s = min(1.0, stall_s / 5)
    silence_s = SILENT_TICKS * tick_s
    store = _bounded(_own_store, stall_s)
    if store is None:
        raise StalledError(f"in {progress.operation!r} of step {progress.step}: {NO_ANSWER}")
    result: Future[T] = Future()
    told: Future[T] = Future()  # that another worker has ended, and why
    ended = threading.Event()
    others_since = 0.0
    device = torch.cuda.current_device() if torch.cuda.is_available() else None
    threading.Thread(target=_run, args=(act, result, device), daemon=True).start()
    threading.Thread(target=_tell, args=(store, progress, tick_s, ended, told), daemon=True).start()
    try:
        # Not by the time-out of `result()`: what `act` raises may be a TimeoutError too.
        while not wait([result, told], tick_s, FIRST_COMPLETED).done:
            waited_s = time.monotonic() - max(progress.since, others_since)
            if result.done() or waited_s <= stall_s:
                continue
            who, others_idle_s = _who(store, max(silence_s, stall_s / 10))  # one long call may silence a worker
            if others_idle_s > stall_s and not result.done():  # it may have ended meanwhile
                raise StalledError(f"no progress for {waited_s:.0f} s: {who}")
            others_since = time.monotonic() - others_idle_s
        return (result if result.done() else told).result()
    except (InputError, RunError) as error:
        _bounded(partial(_end_all, store, error))
        raise
    except RuntimeError as error:
        if isinstance(error, StalledError) or not _is_lost_peer(error):
            raise
        if (why := _bounded(partial(_end_of_all, store))) is not None:  # it left before this worker was told
            raise why from None
        place = f"in {progress.operation!r} of step {progress.step}"
        raise StalledError(f"{place}: {_who(store, silence_s)[0]} ({str(error).splitlines()[0]})") from error
    finally:
        ended.set()


def _run(act: Callable[[], T], result: "Future[T]", device: int | None) -> None:
    try:
        if device is not None:
            torch.cuda.set_device(device)  # each thread has its own
        result.set_result(act())
    except BaseException as error:
        result.set_exception(error)


def _own_store() -> dist.Store:
    """The group's store, over a connection of the watch alone: whoever makes a group waits on the common one for all
    workers, and nobody else is served there meanwhile."""
    common: Any = dist.distributed_c10d._get_default_store()  # its type does not know `clone`
    own: dist.Store = common.clone()
    return own


def _tell(store: dist.Store, progress: Progress, tick_s: float, ended: threading.Event, told: "Future[Any]") -> None:
    """Note for the others what this worker does, until it ends; and look whether one of them has ended all."""
    key, beat = f"{KEY}/{dist.get_rank()}", 0
    while True:
        beat += 1
        note = {"beat": beat, "step": progress.step, "operation": progress.operation, "count": progress.count}
        note |= {"idle_s": time.monotonic() - progress.since, "left": ended.is_set()}
        try:
            store.set(key, json.dumps(note))
            if not told.done() and (why := _end_of_all(store)) is not None:
                told.set_exception(why)
        except RuntimeError as error:  # its keeper is gone; who waits for it says so
            log.debug("train: the store does not take a note: %s", error)
            return
        if note["left"]:
            return
        ended.wait(tick_s)


def _end_all(store: dist.Store, error: Exception) -> None:
    """What one worker found, no other would find otherwise: let it end all of them. The first one is kept."""
    kind = InputError if isinstance(error, InputError) else RunError
    why = json.dumps({"kind": kind.__name__, "text": str(error)})
    store.compare_set(END, "", why)


def _end_of_all(store: dist.Store) -> Exception | None:
    """Why a worker has ended all; None where none has."""
    if not store.check([END]):
        return None
    why = json.loads(store.get(END))
    return (InputError if why["kind"] == InputError.__name__ else RunError)(why["text"])


def _is_lost_peer(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "onnection" in str(error)


def _who(store: dist.Store, silence_s: float) -> tuple[str, float]:
    """Which workers hold up the others: the silent ones, else those furthest behind. And for how many seconds no worker
    that gives signs of life has got on."""
    before = _bounded(partial(_notes, store))
    threading.Event().wait(silence_s)
    after = _bounded(partial(_notes, store)) if before else None
    if before is None or after is None:
        return NO_ANSWER, math.inf
    silent = [rank for rank, note in after.items() if note is None or (note == before[rank] and not note["left"])]
    if silent:
        told = (f"rank {rank} gives no sign of life, last seen {_place(after[rank])}" for rank in silent)
        return "; ".join(told), math.inf
    idle_s = min((note["idle_s"] for note in after.values() if note and not note["left"]), default=math.inf)
    counts = {rank: note["count"] for rank, note in after.items() if note}
    behind = [rank for rank, count in counts.items() if count == min(counts.values())]
    who = "all workers are" if len(behind) == len(counts) > 1 else f"rank {behind[0]} is"
    return f"{who} {_place(after[behind[0]])}", idle_s


def _place(note: dict[str, Any] | None) -> str:
    return f"in {note['operation']!r} of step {note['step']}" if note else "nowhere"


def _notes(store: dist.Store) -> dict[int, dict[str, Any] | None]:
    keys = {rank: f"{KEY}/{rank}" for rank in range(dist.get_world_size())}
    return {rank: json.loads(store.get(key)) if store.check([key]) else None for rank, key in keys.items()}


def _bounded(act: Callable[[], T], wait_s: float = ANSWER_S) -> T | None:
    """What `act` returns, within `wait_s`; None when it does not return or the store is gone."""
    result: Future[T] = Future()
    threading.Thread(target=_run, args=(act, result, None), daemon=True).start()
    try:
        return result.result(wait_s)
    except (NotYetError, RuntimeError):
        return None
