"""What a failed worker group is told as."""

import pytest

from data.errors import InputError, RunError
from ray_jobs.train_run import _told


class Failed(Exception):
    """As Ray's error of a worker group: what each rank raised."""

    def __init__(self, *failures: str) -> None:
        super().__init__("Training failed")
        self.worker_failures = {rank: Exception(text) for rank, text in enumerate(failures)}


@pytest.mark.parametrize(
    ("failures", "kind", "says"),
    [
        (("Traceback\n  File\ndata.errors.InputError: no room: set x", "y"), InputError, "no room: set x"),
        (("connection closed", "ray_jobs.train_watchdog.StalledError: rank 1 is in 'a'"), RunError, "rank 1 is in 'a'"),
        (("", "the actor died"), RunError, "after 2 retries"),
        ((), RunError, "Training failed"),
    ],
)
def test_the_error_that_says_most_is_told(failures: tuple[str, ...], kind: type[Exception], says: str) -> None:
    told = _told(Failed(*failures), 2)
    assert type(told) is kind
    assert says in str(told)
