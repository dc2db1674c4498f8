"""What the watching thread of a worker makes of how its work ends."""

import pytest

from ray_jobs.train_watchdog import Progress, StalledError, run_watched
from tests.model.process_group import run_group


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
