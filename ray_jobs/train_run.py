"""Places a training on Ray Train: the worker group, its faults and retention. The work itself is train_loop's."""

import logging
import os
import threading
from typing import Any

from data import storage
from ray_jobs.recipe import Recipe
from ray_jobs.session import start_ray
from ray_jobs.train_log import progress_line
from ray_jobs.train_loop import CHECKPOINTS, TrainLoop
from ray_jobs.train_metrics import rows_after
from ray_jobs.train_parts import TrainParts, load_parts
from ray_jobs.train_sinks import RayMetricsSink

log = logging.getLogger("antiphon")

PROGRESS_EVERY_S = 5.0


def run_training(parts: TrainParts, folder: str) -> None:
    """Train on `train.num_workers` workers until every phase is done. Raises TrainingFailedError when they fail.

    A worker that dies is replaced, with all others, up to `train.max_failures` times; training goes on from the last
    checkpoint. So does a call for a folder whose training was cut off.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    start_ray()
    train = parts.recipe.train
    # Ray's own notes on checkpoints may be half-written after a kill; the workers report what is there anew.
    storage.delete(storage.join(folder, CHECKPOINTS, "checkpoint_manager_snapshot.json"))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "recipe": parts.recipe.model_dump(mode="json"),
            "inputs": parts.inputs,
            "folder": folder,
        },
        torch_config=TorchConfig(backend="nccl" if train.num_gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=train.num_workers,
            use_gpu=train.num_gpus > 0,
            resources_per_worker={"CPU": train.num_cpus, **({"GPU": train.num_gpus} if train.num_gpus else {})},
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=folder,
            failure_config=FailureConfig(max_failures=train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=train.keep_checkpoints),
        ),
    )
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, parts.phases[-1].last_step, stop), daemon=True)
    watcher.start()
    try:
        trainer.fit()
    finally:
        stop.set()
        watcher.join()


def train_worker(config: dict[str, Any]) -> None:
    """What Ray runs on each worker."""
    import torch
    from ray import train as ray_train
    from ray.train import Checkpoint, CheckpointUploadMode

    if not torch.cuda.is_available():
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    context = ray_train.get_context().get_storage()

    def report(checkpoint: str, metrics: dict[str, Any]) -> None:
        """The shards are where they belong already: nothing is copied, Ray learns of them and keeps the newest."""
        path = context.build_checkpoint_path_from_name(checkpoint.rsplit("/", 1)[-1])
        ray_train.report(
            metrics,
            checkpoint=Checkpoint(path, context.storage_filesystem),
            checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
        )

    def reported() -> set[str]:
        found = ray_train.get_all_reported_checkpoints()
        return {item.checkpoint.path.rstrip("/").rsplit("/", 1)[-1] for item in found}

    parts = load_parts(Recipe.model_validate(config["recipe"]), config["inputs"])
    loop = TrainLoop(parts, config["folder"], report, [RayMetricsSink(config["folder"])])
    loop.report_again(reported())
    loop.run()


def _watch(folder: str, last_step: int, stop: threading.Event) -> None:
    """A line for every interval, from what worker 0 has written; looked for every few seconds."""
    seen = max((row["step"] for row in rows_after(folder, 0)), default=0)
    while not stop.wait(PROGRESS_EVERY_S):
        for row in rows_after(folder, seen):
            seen = row["step"]
            if "tokens_per_s" in row:
                log.info("train: %s", progress_line(row, last_step))
