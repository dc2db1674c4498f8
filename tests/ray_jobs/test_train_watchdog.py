"""What the watching thread of a worker makes of how its work ends, and of the others'."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch.distributed as dist

from data.errors import InputError, RunError
from ray_jobs import train_watchdog
from ray_jobs.train_watchdog import Progress, StalledError, run_watched
from tests.model.process_group import run_group, watch_group

STALL_S = 2.0  # after as long a worker counts as silent too: a loaded machine may stop one for a second


def _ends() -> str:
    def time_out() -> None:
        raise TimeoutError("the object store does not answer")

    def lose_peer() -> None:
        raise RuntimeError("Connection closed by peer")

    with pytest.raises(TimeoutError, match="the object store"):
        run_watched(time_out, Progress(), 60)
    with pytest.raises(StalledError, match=r"in 'starting' of step 0: .* \(Connection closed"):
        run_watched(lose_peer, Progress(), 1)
    return run_watched(lambda: "done", Progress(), 60)


def test_an_error_of_the_work_is_raised_even_where_it_is_a_timeout() -> None:
    assert run_group(1, _ends) == ["done"]


def _ends_late() -> str:
    finish, acting = threading.Event(), list[threading.Thread]()

    def act() -> str:
        acting.append(threading.current_thread())
        finish.wait()
        return "done"

    def who(*arguments: Any) -> tuple[str, float]:
        finish.set()
        acting[0].join(60)
        return "rank 0 is in 'a'", 60.0

    train_watchdog._who = who
    return run_watched(act, Progress(), STALL_S)


def test_work_that_ends_while_it_is_asked_who_holds_it_up_is_done() -> None:
    assert run_group(1, _ends_late) == ["done"]


def _hang() -> None:
    threading.Event().wait()


def _one_refuses(kind: type[Exception]) -> str:
    def refuse() -> None:
        raise kind("no room: set x")

    with pytest.raises(kind) as raised:
        run_watched(refuse if dist.get_rank() == 1 else _hang, Progress(), 60)
    return str(raised.value)


@pytest.mark.parametrize("kind", [InputError, RunError])
def test_what_one_worker_refuses_ends_those_that_wait_for_it_with_its_words(kind: type[Exception]) -> None:
    assert run_group(2, _one_refuses, kind) == ["no room: set x"] * 2


def _meet(work: Callable[[Progress], None]) -> None:
    """Rank 0 does `work` while rank 1 waits for it."""
    progress = Progress()
    progress.at("working", 3)

    def act() -> None:
        if dist.get_rank() == 0:
            work(progress)
        dist.barrier()

    run_watched(act, progress, STALL_S)


def _work_on(progress: Progress) -> None:
    end = time.monotonic() + 2.5 * STALL_S  # past the stall, and the look at who is silent
    while time.monotonic() < end:
        threading.Event().wait(STALL_S / 50)  # a piece of a long work
        progress.beat()


def _stand_still(progress: Progress) -> None:
    _hang()


def test_a_long_operation_that_gets_on_is_waited_for_longer_than_stall_s() -> None:
    run_group(2, _meet, _work_on)


def test_where_nobody_gets_on_all_end() -> None:
    for end in watch_group(2, _meet, _stand_still).values():
        assert end is not None
        assert "StalledError" in end
        assert "all workers are in 'working' of step 3" in end


def _gather_over_tcp() -> None:
    """The group anew, over the kind of store that clusters have."""
    files = dist.distributed_c10d._get_default_store()
    if dist.get_rank() == 0:
        store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        files.set("port", str(store.port))
    else:
        store = dist.TCPStore("localhost", int(files.get("port")), is_master=False)
    rank = dist.get_rank()
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)


def _make_a_group_in_vain() -> None:
    _gather_over_tcp()
    progress = Progress()
    if dist.get_rank() == 1:
        run_watched(_hang, progress, STALL_S)
    progress.at("meeting", 0)
    run_watched(lambda: dist.new_group(backend="gloo"), progress, STALL_S)


def test_a_worker_that_waits_for_another_to_make_a_group_names_it() -> None:
    assert "rank 1 is in 'starting' of step 0" in str(watch_group(2, _make_a_group_in_vain)[0])
