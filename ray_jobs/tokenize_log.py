"""What a running tokenization tells: a line on stderr, rows of metrics.jsonl, and Ray metrics."""

import math
from collections.abc import Sequence

from ray.util.metrics import Gauge

from ray_jobs.tokenize_plan import ShardPlan
from ray_jobs.tokenize_progress import Progress
from ray_jobs.tokenize_watch import Status
from ray_jobs.train_metrics import MetricsLog, merge_metrics

ROW_EVERY_S = 30.0
GAUGES = {
    "hours_done": "hours of audio that are tokens now",
    "x_real_time": "seconds of audio encoded in a second by this run",
    "shards_done": "shards of the token store that are written",
}


class TokenizeLog:
    """A context manager around the work on `pending`, those of `plans` that are not written yet."""

    def __init__(self, folder: str, plans: Sequence[ShardPlan], pending: Sequence[ShardPlan]) -> None:
        total_s, pending_s = (sum(plan.seconds for plan in some) for some in (plans, pending))
        self._folder = folder
        self._progress = Progress(len(plans), total_s, (len(plans) - len(pending), total_s - pending_s))
        self._metrics = MetricsLog(folder)
        self._gauges = {name: Gauge(f"antiphon_tokenize_{name}", text) for name, text in GAUGES.items()}
        self._last = Status(0, 0.0, 0, ())
        self._row_due_s = 0.0

    def __enter__(self) -> "TokenizeLog":
        return self

    def __exit__(self, *error: object) -> None:
        numbers = self._progress.numbers(self._last.shards, self._last.seconds)
        self._progress.show(numbers, last=True)
        self._write(numbers)
        self._metrics.flush()
        if error[0] is None:
            merge_metrics(self._folder)

    def show(self, status: Status) -> None:
        """Take the latest status."""
        self._last = status
        numbers = self._progress.numbers(status.shards, status.seconds)
        self._progress.show(numbers)
        if numbers["elapsed_s"] >= self._row_due_s:
            self._row_due_s = numbers["elapsed_s"] + ROW_EVERY_S
            self._write(numbers)

    def _write(self, numbers: dict[str, float]) -> None:
        for name, gauge in self._gauges.items():
            gauge.set(numbers[name])
        row = {name: None if math.isnan(value) else round(value, 3) for name, value in numbers.items()}
        self._metrics.add({"step": int(numbers["shards_done"]), **row})
