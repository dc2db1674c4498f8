"""Where the numbers of a training go beside metrics.jsonl: TensorBoard, Ray's metrics, W&B and MLflow.

A sink is one small class. Services read their addresses and keys from their own environment variables
(WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, …): none is ever in a recipe.
"""

import importlib.util
import logging
import re
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from data import storage
from data.errors import InputError
from ray_jobs.recipe import Recipe

log = logging.getLogger("antiphon")

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
TENSORBOARD = "tensorboard"
PREFIX = "train/"


class Sink(Protocol):
    """Takes named numbers at growing steps; after a resume steps may come again."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of one step."""

    def close(self) -> None:
        """Nothing more will come."""


def check_sinks(names: Iterable[str]) -> None:
    """Raises InputError for a sink whose package is not installed, naming it."""
    for name in names:
        package = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"train.sinks names {name!r}, which needs the package {package!r}, and that is not installed: "
                f"pip install {package}, or leave {name!r} out of train.sinks"
            )


def open_sinks(recipe: Recipe, folder: str, step: int) -> list[Sink]:
    """The recipe's sinks for the run in `folder`, which goes on after `step`, but those that cannot be opened: no
    service is worth a training. Raises InputError as `check_sinks` does."""
    check_sinks(recipe.train.sinks)
    kinds: dict[str, Any] = {"tensorboard": TensorBoardSink, "wandb": WandbSink, "mlflow": MlflowSink}
    found = []
    for name in recipe.train.sinks:
        try:
            found.append(kinds[name](recipe, folder, step))
        except Exception as error:  # every service raises its own kinds
            log.warning("train: %s gets no numbers, it cannot be opened: %s: %s", name, type(error).__name__, error)
    return found


class TensorBoardSink:
    """Event files under tensorboard/ of the run folder: `tensorboard --logdir RUN`. After a resume the reader
    forgets what came after the checkpoint."""

    def __init__(self, recipe: Recipe, folder: str, step: int) -> None:
        from tensorboardX import SummaryWriter

        self._target = storage.join(folder, TENSORBOARD)
        self._scratch = tempfile.TemporaryDirectory() if storage.is_url(folder) else None
        local = self._scratch.name if self._scratch else self._target
        # Files are named by the second: the step keeps a quick resume from writing over the file before.
        self._writer = SummaryWriter(local, purge_step=step + 1, flush_secs=10**6, filename_suffix=f".{step}")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """See Sink."""
        for name, value in numbers.items():
            self._writer.add_scalar(PREFIX + name, value, step)
        self._writer.flush()
        if self._scratch:
            storage.copy_folder(self._scratch.name, self._target)

    def close(self) -> None:
        """See Sink."""
        self._writer.close()
        if self._scratch:
            storage.copy_folder(self._scratch.name, self._target)
            self._scratch.cleanup()


class WandbSink:
    """A W&B run named as the run folder; a resume goes on with it, and of steps that come twice W&B keeps the first."""

    def __init__(self, recipe: Recipe, folder: str, step: int) -> None:
        import wandb

        name = _run_name(folder)
        self._run = wandb.init(id=name, name=name, resume="allow", config=recipe.model_dump(mode="json"))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """See Sink."""
        self._run.log({PREFIX + name: value for name, value in numbers.items()}, step=step)

    def close(self) -> None:
        """See Sink."""
        self._run.finish()


class MlflowSink:
    """An MLflow run named as the run folder; a resume is a run of its own under the same name."""

    def __init__(self, recipe: Recipe, folder: str, step: int) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.start_run(run_name=_run_name(folder))
        mlflow.log_dict(recipe.model_dump(mode="json"), "recipe.json")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """See Sink."""
        self._mlflow.log_metrics({PREFIX + name: value for name, value in numbers.items()}, step=step)

    def close(self) -> None:
        """See Sink."""
        self._mlflow.end_run()


class RayMetricsSink:
    """Gauges antiphon_train_<name> of the Ray node, with the run's name as a tag: Prometheus and the dashboard read
    them."""

    def __init__(self, folder: str) -> None:
        self._tags = {"run": _run_name(folder)}
        self._gauges: dict[str, Any] = {}

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """See Sink."""
        from ray.util.metrics import Gauge

        for name, value in {"step": step, **numbers}.items():
            if name not in self._gauges:
                metric = "antiphon_train_" + re.sub(r"\W", "_", name)
                self._gauges[name] = Gauge(metric, description=f"{name} of a training", tag_keys=("run",))
            self._gauges[name].set(value, tags=self._tags)

    def close(self) -> None:
        """See Sink."""


def _run_name(folder: str) -> str:
    return folder.rstrip("/").rsplit("/", 1)[-1]
