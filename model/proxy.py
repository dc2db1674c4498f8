"""A small model trained for a short while, to compare mixtures: what one trial of a search computes."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import distributed, nn

from model.train_step import TensorBatch, compute_loss, target_weight


def proxy_curve(
    lm: Any,
    batch_at: Callable[[int], TensorBatch],
    held_out: Mapping[str, TensorBatch],
    *,
    steps: int,
    report_every: int,
    lr: float,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train `lm` on batch_at(0), batch_at(1), … and yield (steps done, task -> held-out loss in nats per token).

    Yields every `report_every` steps and after the last. AdamW with a short warm-up and a cosine to a tenth: the
    same for every mixture, so that curves of equal steps are curves of equal tokens. Under an initialised process
    group each worker gives its share of the rows, and all compute the same step.
    """
    optimizer = torch.optim.AdamW(lm.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.05)
    warmup_steps = max(1, steps // 20)
    for step in range(steps):
        scale = min((step + 1) / warmup_steps, 0.55 + 0.45 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
        batch = batch_at(step)
        total_weight = _sum_over_workers(target_weight(batch)).clamp_min(1.0)
        compute_loss(lm, batch, total_weight).backward()
        for parameter in lm.parameters():
            _sum_over_workers(parameter.grad)
        nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done % report_every == 0 or done == steps:
            yield done, held_out_losses(lm, held_out)


@torch.no_grad()
def held_out_losses(lm: Any, held_out: Mapping[str, TensorBatch]) -> dict[str, float]:
    """Task -> mean loss per target token (nats) over fixed rows."""
    lm.eval()
    losses = {task: float(compute_loss(lm, batch, target_weight(batch))) for task, batch in held_out.items()}
    lm.train()
    return losses


def _sum_over_workers(tensor: torch.Tensor) -> torch.Tensor:
    """In place, over the workers of a trial that has several; a trial in one process has nothing to add."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(tensor)
    return tensor


def relative_loss(losses: Mapping[str, float], uniform: Mapping[str, float]) -> float:
    """Mean over tasks of loss / that task's loss under the uniform mixture: below 1 is better than uniform."""
    return sum(losses[task] / uniform[task] for task in uniform) / len(uniform)
