"""Held-out losses of a training, and a small probe by decoding: all workers take part, and nothing of the training
changes by it, neither weights nor random states.

Shapes: B rows, T positions.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from data.errors import InputError
from data.packing import IGNORED, Batch, rows_per_rank
from data.shares import ShareSchedule
from data.stream import evaluation_rows
from model.checkpoint_files import no_one
from model.schedule import PhasePlan
from model.train_step import TensorBatch, target_weight, to_tensors
from ray_jobs.train_parts import TrainParts
from ray_jobs.train_probe import Probe

log = logging.getLogger("antiphon")


class Validation:
    """The validation of one phase. `new_model` gives the phase's first model, for the probe; `alive` is called as it
    gets on."""

    def __init__(
        self,
        parts: TrainParts,
        plan: PhasePlan,
        device: Any,
        new_model: Callable[[], Any],
        alive: Callable[[], None] = no_one,
    ) -> None:
        train = parts.recipe.train
        self._device, self._alive = device, alive
        self._every, self._last_step, self._micro = train.validate_every, plan.last_step, train.micro_batch_rows
        self._rows: dict[str, TensorBatch] = {}
        self._weights: dict[str, torch.Tensor] = {}
        self._probe = None
        if self._every:
            for task, batch in validation_rows(parts, plan).items():
                self._weights[task] = target_weight(to_tensors(batch))
                mine = share_of(batch, dist.get_rank(), dist.get_world_size(), self._micro, parts.vocabulary.pad_id)
                self._rows[task] = to_tensors(mine, device)
            if train.probe_utterances:
                tasks = [task for task in train.probe_tasks if task in self._rows]
                self._probe = Probe(parts, tasks, new_model, alive)

    def after(self, step: int, engine: Any) -> dict[str, Any]:
        """What the row of a step says: {} where none is due, else {validation: task -> loss, probe: …}. Worker 0 takes
        longer than the others: it decodes."""
        if not self._every or (step % self._every and step != self._last_step):
            return {}
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        engine.module.eval()
        try:
            with torch.random.fork_rng(devices=devices), torch.no_grad():
                found: dict[str, Any] = {"validation": self._losses(engine)}
                if self._probe is not None:
                    found["probe"] = self._probe.run(engine)
        finally:
            engine.module.train()
        return found

    def _losses(self, engine: Any) -> dict[str, float]:
        """Task -> mean loss per target token (nats), summed over the workers' rows."""
        sums = torch.zeros(len(self._rows), dtype=torch.float64)
        for index, (task, rows) in enumerate(self._rows.items()):
            for start in range(0, rows.ids_BT.shape[0], self._micro):
                share = rows.rows(start, start + self._micro)
                loss, _ = engine.module(share, self._weights[task].float().to(self._device))
                sums[index] += loss.double().cpu()
                self._alive()
        sums = sums.to(self._device)
        dist.all_reduce(sums)
        return dict(zip(self._rows, sums.tolist(), strict=True))


def validation_rows(parts: TrainParts, plan: PhasePlan) -> dict[str, Batch]:
    """Task -> fixed rows of the dev split, for the phase's `validation` tasks or else those that it trains.

    A trained task that no held-out record has is left out, and that is said. Raises InputError for a task of
    `validation` that is unknown or without held-out records, and where nothing is left.
    """
    recipe, asked = parts.recipe, plan.config.validation
    dev = parts.store.split("dev")
    found = {}
    for task in asked if asked is not None else _trained(parts, plan):
        if task not in parts.grammars:
            raise InputError(
                f"phase {plan.config.name!r}: validation names task {task!r}: choose from {sorted(parts.grammars)}"
            )
        try:
            found[task] = evaluation_rows(
                dev, parts.grammars[task], recipe.train.sequence_length, recipe.train.validation_rows, recipe.seed
            )
        except InputError as error:
            if asked is not None:
                raise
            log.info("train: phase %s: no held-out loss for %s", plan.config.name, error)
    if not found:
        raise InputError(
            f"phase {plan.config.name!r}: none of the {len(dev)} held-out (dev) records can be validated on: give the "
            "corpus a dev split, or set train.validate_every=0"
        )
    return found


def _trained(parts: TrainParts, plan: PhasePlan) -> list[str]:
    return list(ShareSchedule(parts.recipe.grammar.groups, plan.config).sources)


def share_of(batch: Batch, rank: int, world_size: int, micro_rows: int, pad_id: int) -> Batch:
    """Rows rank, rank + world_size, …, and empty ones, so that every worker has the same whole micro-batches."""
    missing = rows_per_rank(len(batch.ids_BT), micro_rows, world_size) - len(batch.ids_BT[rank::world_size])
    length = batch.ids_BT.shape[1]

    def padded(array: np.ndarray, fill: np.ndarray | float) -> np.ndarray:
        empty = np.broadcast_to(np.asarray(fill, dtype=array.dtype), (missing, length))
        return np.concatenate([array[rank::world_size], empty])

    return Batch(
        padded(batch.ids_BT, pad_id),
        padded(batch.labels_BT, IGNORED),
        padded(batch.position_ids_BT, np.arange(length)),
        padded(batch.weights_BT, 0.0),
        batch.sources[rank::world_size] + ((),) * missing,
    )
