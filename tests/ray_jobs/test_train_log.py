"""What is written down of a training: rates, lines, sinks."""

import math
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from data import storage
from data.errors import InputError, RunError
from model.flops import FlopCount
from model.schedule import plan_phases
from model.train_step import IGNORED, TensorBatch
from ray_jobs.train_log import CLOCKED, DataWait, TrainLog, flat_numbers, progress_line, without_clock
from ray_jobs.train_metrics import rows_after
from ray_jobs.train_sinks import MlflowSink, TensorBoardSink, WandbSink, check_sinks, open_sinks
from tests.ray_jobs.tiny_store import tiny_recipe


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, numbers: Any) -> None:
        self.rows.append((step, dict(numbers)))

    def close(self) -> None:
        self.rows.append((-1, {}))


def _row(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "phase": "p",
        "loss": 2.0,
        "lr": 1e-3,
        "grad_norm": 0.5,
        "tokens": 100,
        "losses": {"asr": 1.0},
    }


def _batch() -> TensorBatch:
    ids = torch.ones(1, 8, dtype=torch.long)
    return TensorBatch(ids, torch.full_like(ids, IGNORED), torch.arange(8)[None], torch.zeros(1, 8))


def test_every_interval_ends_in_a_row_with_rates_for_file_line_and_sinks(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "train.log_every=5", "train.sinks=[]")
    (plan, *_) = plan_phases(recipe.train)
    kept, wait = Kept(), DataWait()
    log = TrainLog(recipe, str(tmp_path), "fp32", "cpu", [kept])
    log.start(0, 16)
    log.start_phase(FlopCount(1e6, 0.0, 0.0), 0, wait)
    for step in wait.watch(range(1, 12)):
        log.step(plan, _row(step), _batch())
    log.close()
    rows = rows_after(str(tmp_path), 0)
    assert [row["step"] for row in rows if "mfu" in row] == [4, 5, 10]  # the phase ends with step 4
    assert [step for step, _ in kept.rows] == [4, 5, 10, -1]
    last = next(row for row in rows if row["step"] == 10)
    assert kept.rows[2][1]["losses/asr"] == 1.0
    assert kept.rows[2][1]["tokens_per_s"] == last["tokens_per_s"] > 0
    flops_of_one_token = last["mfu"] * last["peak_tflops"] * 1e12 / last["tokens_per_s"]
    assert flops_of_one_token == pytest.approx(1e6 * 8 / 100, rel=1e-2)
    line = progress_line(last, 16)
    for part in (
        "step 10/16",
        "loss 2.000",
        "lr 1.00e-03",
        "grad norm 0.50",
        "tokens/s",
        "MFU",
        "TFLOP/s",
        "data",
        "left",
    ):
        assert part in line
    assert set(last) - set(without_clock(last)) == set(CLOCKED)


def test_a_sink_that_fails_is_let_go_and_the_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Kept):
        def write(self, step: int, numbers: Any) -> None:
            super().write(step, numbers)
            raise ConnectionError("no service")

    recipe = tiny_recipe(tmp_path, "train.log_every=1", "train.sinks=[]")
    (plan, *_) = plan_phases(recipe.train)
    failing, kept = Failing(), Kept()
    log = TrainLog(recipe, str(tmp_path), "fp32", "cpu", [failing, kept])
    log.start(0, 16)
    log.start_phase(FlopCount(1e6, 0.0, 0.0), 0, DataWait())
    for step in (1, 2):
        log.step(plan, _row(step), _batch())
    log.close()
    assert [step for step, _ in failing.rows] == [1]
    assert [step for step, _ in kept.rows] == [1, 2, -1]
    assert "Failing gets no more numbers: no service" in caplog.text


def test_a_step_that_float16_skipped_has_no_norm_but_a_row_that_any_reader_takes(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "train.log_every=1", "train.sinks=[]")
    (plan, *_) = plan_phases(recipe.train)
    kept = Kept()
    log = TrainLog(recipe, str(tmp_path), "fp32", "cpu", [kept])
    log.start(0, 16)
    log.start_phase(FlopCount(1e6, 0.0, 0.0), 0, DataWait())
    log.step(plan, {**_row(1), "grad_norm": math.inf}, _batch())
    (row,) = rows_after(str(tmp_path), 0)
    assert row["grad_norm"] is None
    assert "grad_norm" not in kept.rows[0][1]
    assert "skipped for overflow, " in progress_line(row, 16)


def test_a_sink_that_cannot_be_opened_is_left_out_and_the_training_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb: Any = ModuleType("wandb")
    wandb.__spec__ = ModuleSpec("wandb", None)

    def init(**options: Any) -> None:
        raise ConnectionError("no network")

    wandb.init = init
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    found = open_sinks(tiny_recipe(tmp_path, "train.sinks=[wandb,tensorboard]"), str(tmp_path), 0)
    assert [type(sink) for sink in found] == [TensorBoardSink]
    assert "wandb gets no numbers, it cannot be opened: ConnectionError: no network" in caplog.text


def test_numbers_that_cannot_be_written_end_the_run_by_name_but_hide_no_other_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "metrics").write_text("a file where the folder should be")
    recipe = tiny_recipe(tmp_path, "train.sinks=[]")
    (plan, *_) = plan_phases(recipe.train)
    log = TrainLog(recipe, str(tmp_path), "fp32", "cpu")
    log.start(0, 16)
    log.start_phase(FlopCount(1e6, 0.0, 0.0), 0, DataWait())
    log.step(plan, _row(1), _batch())
    with pytest.raises(RunError, match="cannot write the numbers of the training into"):
        log.flush()
    log.close()
    assert "cannot write the numbers" in caplog.text


def test_the_wait_for_data_is_the_time_that_the_iterator_takes() -> None:
    def slow() -> Any:
        for item in range(3):
            deadline = time.perf_counter() + 0.02
            while time.perf_counter() < deadline:
                pass
            yield item

    wait, started = DataWait(), time.perf_counter()
    assert list(wait.watch(slow())) == [0, 1, 2]
    assert 0.06 <= wait.total_s <= time.perf_counter() - started


def test_nested_numbers_get_flat_names() -> None:
    row = {"step": 3, "phase": "p", "loss": 1, "validation": {"asr": 2.0}, "probe": {"asr": {"error_rate": 0.5}}}
    assert flat_numbers(row) == {"loss": 1, "validation/asr": 2.0, "probe/asr/error_rate": 0.5}


def test_tensorboard_files_hold_the_numbers_and_a_resume_drops_what_came_after(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    recipe = tiny_recipe(tmp_path)
    for start in (0, 5):
        sink = TensorBoardSink(recipe, str(tmp_path), start)
        sink.write(start + 2, {"loss": 1.5})
        sink.close()
    events = []
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:  # records: length, its checksum, the event, its checksum
            size = int.from_bytes(content[:8], "little")
            events.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    scalars = [(event.step, event.summary.value[0].tag, event.summary.value[0].simple_value)
               for event in events if event.summary.value]  # fmt: skip
    assert scalars == [(2, "train/loss", 1.5), (7, "train/loss", 1.5)]
    assert any(event.session_log.status == 1 and event.step == 6 for event in events)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_sink_without_its_package_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match=f"package '{name}'.*pip install {name}"):
        check_sinks(("tensorboard", name))


def test_wandb_and_mlflow_get_run_recipe_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    wandb: Any = ModuleType("wandb")
    wandb.init = lambda **options: SimpleNamespace(
        log=lambda numbers, step: calls.append(("wandb", options["id"], numbers, step)), finish=lambda: None
    )
    mlflow: Any = ModuleType("mlflow")
    mlflow.start_run = lambda run_name: calls.append(("mlflow", run_name))
    mlflow.log_dict = lambda recipe, name: calls.append((name, recipe["name"]))
    mlflow.log_metrics = lambda numbers, step: calls.append(("mlflow", numbers, step))
    mlflow.end_run = lambda: None
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    recipe = tiny_recipe(tmp_path)
    for kind in (WandbSink, MlflowSink):
        sink: Any = kind(recipe, str(tmp_path / "train-abc"), 0)
        sink.write(4, {"loss": 1.0})
        sink.close()
    assert ("wandb", "train-abc", {"train/loss": 1.0}, 4) in calls
    assert ("mlflow", {"train/loss": 1.0}, 4) in calls
    assert ("recipe.json", "tiny") in calls


def test_a_run_on_an_object_store_gets_its_tensorboard_files_too() -> None:
    sink = TensorBoardSink(SimpleNamespace(), "memory://runs/train-x", 0)  # type: ignore[arg-type]
    sink.write(1, {"loss": 1.0})
    sink.close()
    assert any("tfevents" in name for name in storage.list_files("memory://runs/train-x/tensorboard"))
