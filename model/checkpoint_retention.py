"""Which checkpoints of a run are kept, and which of them is good: the newest, the best, the intact."""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from data.errors import InputError, RunError
from model.checkpoint_files import complete_checkpoints, damage, delete_checkpoint, no_one, read_manifest
from model.train_config import KeepBest

log = logging.getLogger("antiphon")


def retire(root: str, keep: int, best: KeepBest | None) -> None:
    """Delete the complete checkpoints below `root` but the `keep` newest and the best by their metrics.

    A checkpoint without the metric, or with one that is no number, is never among the best.
    """
    found = complete_checkpoints(root)
    kept = {*found[-keep:], *(_best(found, best) if best else ())}
    for folder in found:
        if folder not in kept:
            delete_checkpoint(folder)


def _best(found: list[str], best: KeepBest) -> list[str]:
    metrics = {folder: read_manifest(folder)["metrics"] for folder in found}
    values = {folder: _number(metrics[folder].get(best.metric)) for folder in found}
    if all(value is None for value in values.values()):
        known = sorted({name for each in metrics.values() for name in each})
        log.warning("train.keep_best.metric=%r is in no checkpoint, which have %s", best.metric, known)
    sign = 1 if best.mode == "min" else -1
    ranked = sorted((sign * value, folder) for folder, value in values.items() if value is not None)
    return [folder for _, folder in ranked[: best.count]]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def newest_intact(root: str, alive: Callable[[], None] = no_one) -> str | None:
    """The newest checkpoint below `root` whose every byte is as it was written; None where there is none at all.

    All workers must call it; they share the reading, and `alive` is called as it gets on. Damaged ones are named, and
    deleted once an older one is found to be whole. Raises RunError when there are checkpoints and none is whole:
    nothing is deleted then.
    """
    found = _broadcast(complete_checkpoints(root))
    damaged: list[str] = []
    why = ""
    for folder in reversed(found):
        reasons = _damages(folder, alive)
        if not reasons:
            for bad in damaged if dist.get_rank() == 0 else []:
                delete_checkpoint(bad)
                log.warning("train: deleted the damaged %s, going on from %s", bad, folder)
            return folder
        why = reasons[0]
        log.warning("train: %s is damaged: %s", folder, why)
        damaged.append(folder)
    if damaged:
        raise RunError(
            f"none of the {len(damaged)} checkpoints below {root} is whole ({why}): restore one, or start anew "
            "with --fresh"
        )
    return None


def intact(folder: str) -> bool:
    """Whether every byte of a checkpoint is as it was written; read by this process alone."""
    try:
        manifest = read_manifest(folder)
    except InputError:
        return False
    return not any(damage(folder, rank, manifest) for rank in range(manifest["world_size"]))


def _damages(folder: str, alive: Callable[[], None]) -> list[str]:
    """What any worker found wrong; each reads its share of the shards."""
    found = []
    try:
        manifest = read_manifest(folder)
        for shard in range(dist.get_rank(), manifest["world_size"], dist.get_world_size()):
            found.append(damage(folder, shard, manifest, alive))
    except (InputError, OSError) as error:
        found.append(str(error))
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, [reason for reason in found if reason])
    return [reason for reasons in everyone for reason in reasons]


def _broadcast(value: Any) -> Any:
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
