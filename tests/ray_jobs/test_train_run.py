"""What a failed worker group is told as."""

import threading
from pathlib import Path

import pytest
import torch.distributed as dist
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from data.errors import RunError
from ray_jobs.train_metrics import MetricsLog
from ray_jobs.train_run import _told, _watch, train_worker
from tests.model.process_group import run_group
from tests.model.tiny_training import train_config
from tests.ray_jobs.tiny_store import tiny_recipe, write_inputs


class Failed(Exception):
    """As Ray's error of a worker group: what each rank raised."""

    def __init__(self, *failures: str) -> None:
        super().__init__("Training failed")
        self.worker_failures = {rank: Exception(text) for rank, text in enumerate(failures)}


@pytest.mark.parametrize(
    ("failures", "kind", "says"),
    [
        (("connection closed", "ray_jobs.train_watchdog.StalledError: rank 1 is in 'a'"), RunError, "rank 1 is in 'a'"),
        (("", "the actor died"), RunError, "after 2 retries"),
        ((), RunError, "Training failed"),
    ],
)
def test_the_error_that_says_most_is_told(failures: tuple[str, ...], kind: type[Exception], says: str) -> None:
    told = _told(Failed(*failures), train_config(0, max_failures=2))
    assert type(told) is kind
    assert says in str(told)


def test_a_cluster_without_room_is_told_what_was_asked_for_and_how_long() -> None:
    failed = ControllerError(WorkerGroupStartupTimeoutError(4))
    told = _told(failed, train_config(0, num_workers=4, num_cpus=3, num_gpus=1, start_s=77))
    assert type(told) is RunError
    for part in ("4 workers of 3 CPU and 1 GPU each", "train.start_s=77 s", "train.max_failures=3"):
        assert part in str(told)


def _work(runs_dir: str, inputs: dict[str, str], folder: str) -> tuple[str, str] | None:
    """What a worker of Ray returns, of which the first has a DeepSpeed configuration of its own."""
    wrong = ["train.deepspeed={zero_optimization: {no_such_key: 1}}"] if dist.get_rank() == 1 else []
    recipe = tiny_recipe(Path(runs_dir), *wrong).model_dump(mode="json")
    return train_worker({"recipe": recipe, "inputs": inputs, "folder": folder})


def test_a_configuration_that_one_worker_refuses_is_returned_by_all_of_them(tmp_path: Path) -> None:
    inputs = write_inputs(tiny_recipe(tmp_path))
    first, second = run_group(2, _work, str(tmp_path), inputs, str(tmp_path / "train"))
    assert first == second
    kind, text = first
    assert kind == "InputError"
    assert "no_such_key" in text
    assert "train.deepspeed" in text


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
