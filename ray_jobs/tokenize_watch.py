"""Whether a tokenization still moves: what every actor says of itself, and the error when all stand still. No Ray."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# A shard that is begun again after its worker died moves again from its beginning; so often that counts as progress,
# and so many actors that come up.
COUNTED_ATTEMPTS = 3
LISTED_WORKERS = 8


class StalledError(RuntimeError):
    """Nothing has moved for tokenize.stall_s."""


@dataclass(frozen=True)
class WorkerState:
    """What one actor does: `seconds` of `shard` are encoded."""

    actor: str
    shard: str
    doing: str
    seconds: float


@dataclass(frozen=True)
class Status:
    """The board at one time: shards and seconds done, moves, and (seconds since it changed, state) of every actor."""

    shards: int
    seconds: float
    moves: int
    workers: tuple[tuple[float, WorkerState], ...]


class Board:
    """The latest state of every actor, and the shards that are done."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._finished: set[str] = set()
        self._finished_s = 0.0
        self._moves = 0
        self._latest: dict[str, tuple[float, WorkerState]] = {}
        self._reached: dict[str, dict[str, float]] = {}

    def report(self, state: WorkerState) -> None:
        """Take what an actor says of itself."""
        before = [actor for actor, (_, other) in self._latest.items() if state.shard and other.shard == state.shard]
        for actor in before:  # at most one, and it is dead when it is another
            del self._latest[actor]
        self._latest[state.actor] = (self._clock(), state)
        if state.shard in self._finished:
            return
        attempts = self._reached.setdefault(state.shard, {})
        known = state.actor in attempts
        if (not known and len(attempts) < COUNTED_ATTEMPTS) or (known and state.seconds > attempts[state.actor]):
            attempts[state.actor] = state.seconds
            self._moves += 1

    def finish(self, shard: str, seconds: float) -> None:
        """A shard is written."""
        self._finished.add(shard)
        self._finished_s += seconds
        self._reached.pop(shard, None)
        self._moves += 1

    def status(self) -> Status:
        """How things stand; seconds of unfinished shards count."""
        now = self._clock()
        current_s = sum(s.seconds for _, s in self._latest.values() if s.shard not in self._finished)
        workers = tuple((now - since, state) for since, state in self._latest.values())
        return Status(len(self._finished), self._finished_s + current_s, self._moves, workers)


class Watchdog:
    """Raises StalledError when a board's moves have not grown for `stall_s`."""

    def __init__(self, stall_s: float, operator: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_s
        self._operator = operator
        self._clock = clock
        self._moves, self._since = -1, clock()

    def check(self, status: Status) -> None:
        """Look at the clock."""
        now = self._clock()
        if status.moves > self._moves:
            self._moves, self._since = status.moves, now
        elif now - self._since >= self._stall_s:
            raise StalledError(_message(status.workers, self._operator, now - self._since))


def _message(workers: Sequence[tuple[float, WorkerState]], operator: str, waited_s: float) -> str:
    """What stands still, where, and what to do."""
    oldest = sorted(workers, key=lambda worker: -worker[0])
    lines = [
        f"  {state.shard or 'no shard yet'} on {state.actor}: {state.doing}, for {age_s:.0f} s"
        for age_s, state in oldest[:LISTED_WORKERS]
    ]
    if len(oldest) > LISTED_WORKERS:
        lines.append(f"  and {len(oldest) - LISTED_WORKERS} more")
    return "\n".join(
        [
            f"{operator} has made no progress for {waited_s:.0f} s:",
            *(lines or ["  no actor has started: does the cluster have the CPUs and GPUs that tokenize.* asks for?"]),
            "if it is only slow, raise tokenize.stall_s; run again to go on: the finished shards are kept",
        ]
    )
