"""What a failed worker group is told as."""

import threading
from pathlib import Path

import pytest

from data.errors import InputError, RunError
from ray_jobs.train_metrics import MetricsLog
from ray_jobs.train_run import _told, _watch


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


def test_an_interval_that_ends_with_the_training_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers = ("loss", "lr", "grad_norm", "tokens_per_s", "mfu", "peak_tflops", "data_wait_share", "eta_s")

    class EndsAtOnce(threading.Event):
        """Set while the last row is written."""

        def wait(self, timeout: float | None = None) -> bool:
            log = MetricsLog(str(tmp_path))
            log.add({"step": 7, "phase": "only", **dict.fromkeys(numbers, 1.0)})
            log.flush()
            return True

    caplog.set_level("INFO")
    _watch(str(tmp_path), 7, EndsAtOnce())
    assert [message for message in caplog.messages if "step 7/7, only" in message]
