"""A tokenization that stands still is told apart from a slow one, by what moves."""

import pytest

from ray_jobs.tokenize_watch import COUNTED_ATTEMPTS, Board, StalledError, Watchdog, WorkerState


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def state(actor: str = "a", shard: str = "part-0", seconds: float = 0.0, doing: str = "encoding") -> WorkerState:
    return WorkerState(actor, shard, doing, seconds)


def test_seconds_of_unfinished_shards_count_until_the_shard_does():
    board = Board()
    board.report(state(seconds=4.0))
    board.report(state("b", "part-1", 2.0))
    assert (board.status().shards, board.status().seconds) == (0, 6.0)
    board.finish("part-0", 9.0)
    board.report(state(seconds=9.0))  # a report that was late
    assert (board.status().shards, board.status().seconds) == (1, 11.0)


def test_a_shard_taken_over_counts_once_and_its_dead_worker_is_forgotten():
    board = Board()
    board.report(state("dead", seconds=7.0))
    board.report(state("heir", seconds=1.0))
    assert board.status().seconds == 1.0
    assert [worker.actor for _, worker in board.status().workers] == ["heir"]


def test_slow_is_not_stuck_and_stuck_names_operator_shard_actor_and_what_it_does():
    clock = Clock()
    board, watchdog = Board(clock), Watchdog(60.0, "MapBatches(X)", clock)
    for _ in range(5):
        clock.now += 59.0
        board.report(state(seconds=clock.now))
        watchdog.check(board.status())
    clock.now += 59.0
    board.report(state(seconds=clock.now - 59.0, doing="encoding 3 utterances"))
    watchdog.check(board.status())
    clock.now += 1.0
    message = r"MapBatches\(X\) has made no progress for 60 s:\n  part-0 on a: encoding 3 utterances, for 1 s"
    with pytest.raises(StalledError, match=message):
        watchdog.check(board.status())


def test_actors_that_die_again_and_again_at_the_same_place_are_no_progress():
    clock = Clock()
    board, watchdog = Board(clock), Watchdog(60.0, "op", clock)
    for attempt in range(COUNTED_ATTEMPTS + 1):
        clock.now += 30.0
        board.report(state(f"actor {attempt}", seconds=0.0))
        watchdog.check(board.status())
    clock.now += 30.0
    board.report(state("one more", seconds=0.0))
    with pytest.raises(StalledError):
        watchdog.check(board.status())


def test_a_cluster_that_never_starts_an_actor_is_named():
    clock = Clock()
    watchdog = Watchdog(60.0, "op", clock)
    watchdog.check(Board(clock).status())
    clock.now = 60.0
    with pytest.raises(StalledError, match="no actor has started"):
        watchdog.check(Board(clock).status())
