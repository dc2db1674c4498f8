"""DeepSpeed: the configuration of a run, an engine around a loss module, one optimizer step.

Weights, gradients and optimizer state are float32; `dtype` bf16 computes the forward and backward passes in
bfloat16 by autocast. Shapes: B rows, T positions.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from data.errors import InputError
from model.deepspeed_config import deepspeed_config
from model.ops import use_environment_ops
from model.train_config import PhaseConfig, TrainConfig
from model.train_step import StepLoss, TensorBatch, target_weight


@dataclass(frozen=True)
class StepResult:
    """What one step did, summed over all workers. `loss` is per unit of target weight."""

    loss: float
    grad_norm: float
    tokens: int


def resolve_dtype(dtype: str) -> str:
    """`auto` as "bf16" where the device computes it fast (CUDA; AVX512-BF16 or AMX on CPU), else as "fp32"."""
    if dtype != "auto":
        return dtype
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    features = torch.cpu.get_capabilities()
    return "bf16" if features.get("avx512_bf16") or features.get("amx_bf16") else "fp32"


def build_optimizer(model: torch.nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) over the trainable weights; norms and biases do not decay."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=0.0, betas=(train.beta1, train.beta2), eps=1e-8
    )


def start_engine(lm: Any, train: TrainConfig, dtype: str) -> Any:
    """A DeepSpeed engine around `lm`, in the process group that torch.distributed has.

    `lm` must be float32 and on its device; the engine owns it from here on.
    """
    if not torch.cuda.is_available():
        use_environment_ops()
    import deepspeed

    module = StepLoss(lm, autocast=dtype == "bf16")
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=build_optimizer(module, train),
        config=deepspeed_config(train, dist.get_world_size()),
        dist_init_required=False,
    )
    return engine


def run_step(engine: Any, batch: TensorBatch, train: TrainConfig, lr: float, pad_id: int) -> StepResult:
    """One optimizer step on this worker's rows of the global batch.

    The loss is the sum over all workers' targets divided by their global weight; so the result does not depend on
    how the rows are dealt out. Raises InputError when the whole step has no target, FloatingPointError when the loss
    is not finite.
    """
    world_size = dist.get_world_size()
    tokens = (batch.ids_BT != pad_id).sum().double()
    totals = torch.stack([target_weight(batch), tokens])
    dist.all_reduce(totals)
    if totals[0] <= 0:
        raise InputError("a step without any target token: are all loss_weights of the phase's tasks 0?")
    micro = train.micro_batch_rows
    rounds = engine.gradient_accumulation_steps()
    if batch.ids_BT.shape[0] != rounds * micro:
        raise ValueError(f"{batch.ids_BT.shape[0]} rows on this worker, expected {rounds} micro-batches of {micro}")
    loss_sum = torch.zeros((), dtype=torch.float64, device=batch.ids_BT.device)
    for group in engine.optimizer.param_groups:
        group["lr"] = lr
    grad_norm = 0.0
    for index in range(rounds):
        loss = engine(batch.rows(index * micro, (index + 1) * micro), totals[0].float())
        # DeepSpeed averages over workers and accumulation rounds: undone here, so that the gradient is the sum's.
        engine.backward(loss * (world_size * rounds))
        loss_sum += loss.detach().double()
        if train.zero_stage == 0 and index == rounds - 1:
            grad_norm = float(torch.nn.utils.clip_grad_norm_(_trainable(engine), train.clip_grad_norm))
        engine.step()
    if train.zero_stage:
        grad_norm = float(engine.get_global_grad_norm())
    dist.all_reduce(loss_sum)
    if not torch.isfinite(loss_sum):
        raise FloatingPointError(f"the loss became {loss_sum.item()}: lower the learning rate of the phase")
    return StepResult(loss=loss_sum.item(), grad_norm=grad_norm, tokens=int(totals[1].item()))


def _trainable(engine: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in engine.module.parameters() if parameter.requires_grad]


def estimate_bytes(num_parameters: int, train: TrainConfig, phase: PhaseConfig, world_size: int) -> dict[str, int]:
    """Memory of model states of one worker after the ZeRO paper (Rajbhandari et al. 2020), all in float32.

    A LoRA phase is counted as if every weight trained: an upper bound.
    """
    weights = 4 * num_parameters
    split = {"weights": 3, "gradients": 2, "optimizer": 1}
    sizes = {"weights": weights, "gradients": weights, "optimizer": 2 * weights}
    result = {name: size // world_size if train.zero_stage >= split[name] else size for name, size in sizes.items()}
    if 1 <= train.zero_stage <= 2:
        result["optimizer"] += weights // world_size  # the partition's own copy of the weights
    return result
