"""Places a training on Ray Train: the worker group, its faults and retention. The work itself is train_loop's."""

import logging
import math
import os
import threading
from typing import Any

from data.errors import InputError, RunError
from model.checkpoint_files import CHECKPOINTS
from model.train_config import TrainConfig
from ray_jobs.recipe import Recipe
from ray_jobs.session import start_ray
from ray_jobs.train_log import progress_line
from ray_jobs.train_loop import TrainLoop
from ray_jobs.train_metrics import rows_after
from ray_jobs.train_parts import TrainParts, load_parts
from ray_jobs.train_sinks import RayMetricsSink
from ray_jobs.train_stop import saving_on_sigterm
from ray_jobs.train_watchdog import Progress, StalledError, run_watched

log = logging.getLogger("antiphon")

PROGRESS_EVERY_S = 5.0
# Ray's own, by name: they are no part of its interface.
NO_PLACE = ("WorkerGroupStartupTimeoutError", "InsufficientClusterResourcesError")


def run_training(parts: TrainParts, folder: str) -> None:
    """Train on `train.num_workers` workers until every phase is done. Raises RunError when they cannot,
    InputError when they refuse what they were given.

    A worker that dies or stalls is replaced, with all others, up to `train.max_failures` times; training goes on from
    the last checkpoint. So does a call for a folder whose training was cut off. SIGTERM saves and ends.
    """
    import ray.train.torch
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig

    start_ray()
    train = parts.recipe.train
    bound_waits(train)
    api: Any = ray.train  # its type hints are those of version 1
    trainer = api.torch.TorchTrainer(
        train_worker,
        train_loop_config={
            "recipe": parts.recipe.model_dump(mode="json"),
            "inputs": parts.inputs,
            "folder": folder,
        },
        torch_config=TorchConfig(backend="nccl" if train.num_gpus else "gloo", timeout_s=math.ceil(2 * train.stall_s)),
        scaling_config=ScalingConfig(
            num_workers=train.num_workers,
            use_gpu=train.num_gpus > 0,
            resources_per_worker={"CPU": train.num_cpus, **({"GPU": train.num_gpus} if train.num_gpus else {})},
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=folder,
            failure_config=api.FailureConfig(
                max_failures=train.max_failures, controller_failure_limit=train.max_failures
            ),
        ),
    )
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, parts.phases[-1].last_step, stop), daemon=True)
    watcher.start()
    try:
        with saving_on_sigterm(folder, train.grace_s):
            if ended := trainer.fit().return_value:
                raise _error_of(*ended)
    except TrainingFailedError as error:
        raise _told(error, train) from error
    finally:
        stop.set()
        watcher.join(PROGRESS_EVERY_S)


def bound_waits(train: TrainConfig) -> None:
    """Have Ray end its own waits, for places of workers and for workers that report, with an error."""
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(train.start_s)
    os.environ["RAY_TRAIN_COLLECTIVE_TIMEOUT_S"] = str(train.stall_s)
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(train.stall_s)


def _error_of(kind: str, text: str) -> Exception:
    return InputError(text) if kind == InputError.__name__ else RunError(text)


def _told(error: Exception, train: TrainConfig) -> Exception:
    """What made a training fail, in one line: of its workers' errors, the one that says most."""
    if type(getattr(error, "controller_failure", None)).__name__ in NO_PLACE:
        return RunError(
            f"the cluster gave no places to {train.num_workers} workers of {train.num_cpus:g} CPU and "
            f"{train.num_gpus:g} GPU each within train.start_s={train.start_s:g} s, tried again up to "
            f"train.max_failures={train.max_failures} times: add nodes, raise start_s where they only come late, or "
            "lower train.num_workers"
        )
    log.error("train: %s", error)
    failures = getattr(error, "worker_failures", {})
    texts = {rank: str(failure).strip() for rank, failure in failures.items()}
    lines = [f"rank {rank}: {text.splitlines()[-1]}" for rank, text in texts.items() if text]
    first = next((line for line in lines if StalledError.__name__ in line), lines[0] if lines else str(error))
    return RunError(
        f"training failed after {train.max_failures} retries (train.max_failures): {first}. Its checkpoints are whole: "
        "run this again to go on from the newest"
    )


def train_worker(config: dict[str, Any]) -> tuple[str, str] | None:
    """What Ray runs on each worker. Returns, instead of raising, what no other try could do better: kind and text of an
    InputError or RunError, the same on all workers."""
    import torch
    from ray import train as ray_train

    if not torch.cuda.is_available():
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

    def report(checkpoint: str, metrics: dict[str, Any]) -> None:
        """Ray learns of the checkpoint; keeping and deleting it is not its business."""
        ray_train.report({**metrics, "checkpoint": checkpoint})

    recipe, folder = Recipe.model_validate(config["recipe"]), config["folder"]
    try:
        parts = run_watched(
            lambda: load_parts(recipe, config["inputs"], run_folder=folder), Progress(), recipe.train.stall_s
        )
        TrainLoop(parts, folder, report, [RayMetricsSink(folder)]).run()
    except (InputError, RunError) as error:
        return type(error).__name__, str(error)
    return None


def _watch(folder: str, last_step: int, stop: threading.Event) -> None:
    """A line for every interval, from what worker 0 has written; looked for every few seconds, and at the end."""
    seen = max((row["step"] for row in rows_after(folder, 0)), default=0)
    ended = False
    while not ended:
        ended = stop.wait(PROGRESS_EVERY_S)
        for row in rows_after(folder, seen):
            seen = row["step"]
            if "tokens_per_s" in row:
                log.info("train: %s", progress_line(row, last_step))
