"""What worker 0 writes down of a training: a row a step, and at the end of every interval how fast it goes.

MFU is that of worker 0: the FLOPs that its rows need over the time that passed, saves and validation included, times
the peak of its device (model/flops.py).
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from data.errors import RunError
from model.flops import FlopCount, peak_flops
from model.schedule import PhasePlan
from model.train_step import TensorBatch
from ray_jobs.recipe import Recipe
from ray_jobs.train_metrics import MetricsLog
from ray_jobs.train_sinks import Sink, open_sinks

log = logging.getLogger("antiphon")

Item = TypeVar("Item")
# What depends on the clock: two runs of the same steps differ in these alone.
CLOCKED = ("tokens_per_s", "mfu", "peak_tflops", "data_wait_share", "eta_s")


class DataWait:
    """Counts the seconds for which a loop stood still because its next batch was not there."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, as they come."""
        iterator, end = iter(items), object()
        while True:
            started = time.perf_counter()
            item: Any = next(iterator, end)
            self.total_s += time.perf_counter() - started
            if item is end:
                return
            yield item


class TrainLog:
    """The rows of a run in `folder`, to metrics.jsonl and the sinks."""

    def __init__(self, recipe: Recipe, folder: str, dtype: str, device: Any, sinks: Iterable[Sink] = ()) -> None:
        self._recipe, self._folder = recipe, folder
        self._metrics = MetricsLog(folder)
        self._sinks = list(sinks)
        self._peak = peak_flops(device, dtype)[0]
        self._last_step = 0

    def start(self, step: int, last_step: int) -> None:
        """The run goes on after `step` and ends with `last_step`: rows after `step` will be written again."""
        self._metrics.truncate(step)
        self._sinks += open_sinks(self._recipe, self._folder, step)
        self._last_step = last_step

    def start_phase(self, flops: FlopCount, pad_id: int, wait: DataWait) -> None:
        """From here on steps are of a model with these FLOPs."""
        self._flops, self._pad_id, self._wait = flops, pad_id, wait
        self._begin_interval()

    def step(self, plan: PhasePlan, row: Mapping[str, Any], batch: TensorBatch) -> None:
        """Take the row {step, tokens, …} of a step and, on the CPU, the rows that worker 0 had in it."""
        self._steps += 1
        self._tokens += row["tokens"]
        self._done_flops += self._flops.of_batch(batch, self._pad_id)
        row = dict(row)
        if not math.isfinite(row["grad_norm"]):
            row["grad_norm"] = None  # fp16 overflowed and skipped the step; JSON has no infinity
        due = row["step"] % self._recipe.train.log_every == 0 or row["step"] == plan.last_step
        ends = due or "validation" in row
        if ends:
            row |= self._rates(row["step"])
        self._metrics.add(row)
        if ends:
            self._metrics.flush()
            number, numbers = row["step"], flat_numbers(row)
            self._tell_sinks(lambda sink: sink.write(number, numbers))
            self._begin_interval()  # what the sinks took is theirs

    def flush(self) -> None:
        """What was taken so far is on storage when this returns."""
        self._metrics.flush()

    def close(self) -> None:
        """Write what is left and let the sinks go."""
        try:
            self._metrics.flush()
        except RunError as error:  # what ends the training is told, not this; rows after a checkpoint come again
            log.warning("train: %s", error)
        self._tell_sinks(lambda sink: sink.close())
        self._sinks = []

    def _tell_sinks(self, act: Callable[[Sink], None]) -> None:
        """A sink that fails is let go: metrics.jsonl has its numbers, and no service is worth a training."""
        for sink in list(self._sinks):
            try:
                act(sink)
            except Exception as error:  # every service raises its own kinds
                log.warning("train: %s gets no more numbers: %s", type(sink).__name__, error)
                self._sinks.remove(sink)

    def _begin_interval(self) -> None:
        self._steps, self._tokens, self._done_flops = 0, 0, 0.0
        self._started, self._waited_s = time.perf_counter(), self._wait.total_s

    def _rates(self, step: int) -> dict[str, float]:
        passed_s = time.perf_counter() - self._started
        rates = {
            "tokens_per_s": self._tokens / passed_s,
            "mfu": self._done_flops / passed_s / self._peak,
            "peak_tflops": self._peak / 1e12,
            "data_wait_share": (self._wait.total_s - self._waited_s) / passed_s,
            "eta_s": (self._last_step - step) * passed_s / self._steps,
        }
        return {name: float(f"{value:.4g}") for name, value in rates.items()}


def flat_numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row under one name each: {"losses": {"asr": 1.0}} is {"losses/asr": 1.0}. `step` is left out."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            found[prefix + name] = value
    return found


def without_clock(row: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs of the same steps have in common."""
    return {name: value for name, value in row.items() if name not in CLOCKED}


def progress_line(row: Mapping[str, Any], last_step: int) -> str:
    """The one line of an interval, from its row."""
    parts = [
        f"step {row['step']}/{last_step}, {row['phase']}",
        f"loss {row['loss']:.3f}",
        f"lr {row['lr']:.2e}",
        "skipped for overflow" if row["grad_norm"] is None else f"grad norm {row['grad_norm']:.2f}",
        f"{row['tokens_per_s']:.0f} tokens/s",
        f"MFU {row['mfu']:.1%} of {row['peak_tflops']:.3g} TFLOP/s",
        f"waits for data {row['data_wait_share']:.1%}",
        f"{row['eta_s']:.0f} s left",
    ]
    if "validation" in row:
        parts.insert(2, "held out " + " ".join(f"{task} {loss:.3f}" for task, loss in row["validation"].items()))
    return ", ".join(parts)
