"""DeepSpeed: an engine around a loss module, and one optimizer step.

Weights, gradients and optimizer state are float32; `dtype` bf16 computes the forward and backward passes in
bfloat16 by autocast. Shapes: B rows, T positions.
"""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from data.errors import InputError
from model.attention import choose_attention, prove_isolation
from model.cross_entropy import check_logits, choose_cross_entropy
from model.deepspeed_config import deepspeed_config, understood
from model.lm import plain_language_model
from model.loss_parts import LossParts
from model.memory import check_memory
from model.ops import use_environment_ops
from model.optimizers import build_optimizer
from model.train_config import PhaseConfig, TrainConfig
from model.train_step import NO_PARTS, StepLoss, TensorBatch, target_weight

log = logging.getLogger("antiphon")


@dataclass(frozen=True)
class StepResult:
    """What one step did, summed over all workers. Losses are per unit of target weight.

    `loss` is what was minimised, with the z-loss where there is one; `source_losses` and `modality_losses` are cross
    entropies of the parts that had targets in this step, where `start_engine` was told of parts. `stop`: some worker
    was asked to stop; all learn of it in the same step.
    """

    loss: float
    grad_norm: float
    tokens: int
    source_losses: Mapping[str, float] = field(default_factory=dict)
    modality_losses: Mapping[str, float] = field(default_factory=dict)
    stop: bool = False


class NotFiniteError(FloatingPointError):
    """The loss or the gradient of a step is no number; all workers raise it alike.

    `sources`: those whose loss is none, where `start_engine` was told of parts.
    """

    def __init__(self, what: str, sources: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.sources = tuple(sources)


def resolve_dtype(dtype: str) -> str:
    """`auto` as "bf16" where the device computes it fast (CUDA; AVX512-BF16 or AMX on CPU), else as "fp32"."""
    if dtype != "auto":
        return dtype
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    features = torch.cpu.get_capabilities()
    return "bf16" if features.get("avx512_bf16") or features.get("amx_bf16") else "fp32"


def start_engine(
    lm: Any,
    train: TrainConfig,
    dtype: str,
    phase: PhaseConfig | None = None,
    parts: LossParts = NO_PARTS,
) -> Any:
    """A DeepSpeed engine around `lm`, in the process group that torch.distributed has.

    `lm` must be float32 and on its device, frozen as its phase wants (model/freezing.py); the engine owns it from here
    on. How it attends and where its logits go is chosen for the device and said in the log.
    Raises InputError for a choice that does not fit model or device, or when the model's states do not fit the memory.
    """
    if not torch.cuda.is_available():
        use_environment_ops()
    import deepspeed

    plain = plain_language_model(lm)
    device = next(plain.parameters()).device
    if dtype == "fp16" and device.type != "cuda":
        raise InputError("train.dtype=fp16 needs a GPU: use bf16 or fp32")
    attention = choose_attention(train.attention, plain.config, device, dtype, train.sequence_length)
    prove_isolation(plain, attention)
    check_logits(plain.config)
    cross_entropy = choose_cross_entropy(
        train.cross_entropy,
        train.micro_batch_rows * train.sequence_length,
        plain.config.vocab_size,
        plain_loss=not train.z_loss and (phase is None or not phase.loss_weights),
    )
    if dist.get_rank() == 0:
        log.info(
            "train: %s, %s, attention %s, cross entropy %s, %s at zero_stage %d%s%s",
            device, dtype, attention, cross_entropy, train.optimizer, train.zero_stage,
            ", activation checkpointing" if train.activation_checkpointing else "",
            ", compiled" if train.compile else "",
        )  # fmt: skip
    fits = check_memory(lm, train, dist.get_world_size(), dtype)
    if dist.get_rank() == 0:
        log.info("train: %s", fits)
    module = StepLoss(lm, dtype == "bf16", attention, cross_entropy, train.z_loss, parts, train.compile)
    if train.activation_checkpointing:
        _checkpoint_activations(plain)
    if train.compile:
        compile_layers(plain, train.activation_checkpointing)
    config = deepspeed_config(train, dist.get_world_size())
    understood(copy.deepcopy(config))
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=build_optimizer(module, train),
        config=config,
        dist_init_required=False,
    )
    return engine


def compile_layers(lm: Any, checkpointed: bool) -> None:
    """Compile each layer by itself. Of checkpointed ones the parts: packed attention stays outside of the graph, and
    within a checkpoint a graph that is broken off is not compiled at all."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    for layer in lm.get_decoder().modules():
        if isinstance(layer, GradientCheckpointingLayer):
            for part in layer.children() if checkpointed else (layer,):
                part.compile()


def _checkpoint_activations(lm: Any) -> None:
    """Each layer keeps its input alone and computes the rest again in the backward pass (Chen et al. 2016)."""
    if not getattr(lm, "supports_gradient_checkpointing", False):
        raise InputError(f"train.activation_checkpointing: {type(lm).__name__} has none; set it to false")
    lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def run_step(
    engine: Any, batch: TensorBatch, train: TrainConfig, lr: float, pad_id: int, stop: bool = False
) -> StepResult:
    """One optimizer step on this worker's rows of the global batch; `stop` when this worker is asked to stop.

    The loss is the sum over all workers' targets divided by their global weight; so the result does not depend on
    how the rows are dealt out. Raises InputError when the whole step has no target, NotFiniteError when the loss or
    the gradient is not finite: the weights are spoilt then.
    """
    world_size = dist.get_world_size()
    tokens = (batch.ids_BT != pad_id).sum().double()
    totals = torch.stack([target_weight(batch), tokens, torch.full_like(tokens, stop)])
    dist.all_reduce(totals)
    if totals[0] <= 0:
        raise InputError("a step without any target token: are all loss_weights of the phase's tasks 0?")
    micro = train.micro_batch_rows
    rounds = engine.gradient_accumulation_steps()
    if batch.ids_BT.shape[0] != rounds * micro:
        raise ValueError(f"{batch.ids_BT.shape[0]} rows on this worker, expected {rounds} micro-batches of {micro}")
    parts: LossParts = engine.module.parts
    # The step's loss, then the sums of its parts: reduced together.
    sums = torch.zeros(1 + 2 * len(parts), dtype=torch.float64, device=batch.ids_BT.device)
    for group in engine.optimizer.param_groups:
        group["lr"] = lr
    grad_norm = 0.0
    for index in range(rounds):
        loss, part_sums_K2 = engine(batch.rows(index * micro, (index + 1) * micro), totals[0].float())
        # DeepSpeed averages over workers and accumulation rounds: undone here, so that the gradient is the sum's.
        engine.backward(loss * (world_size * rounds))
        sums += torch.cat([loss.detach().double()[None], part_sums_K2.flatten()])
        if train.zero_stage == 0 and index == rounds - 1:
            grad_norm = float(torch.nn.utils.clip_grad_norm_(_trainable(engine), train.clip_grad_norm))
        engine.step()
    if train.zero_stage:
        grad_norm = float(engine.get_global_grad_norm())
    dist.all_reduce(sums)
    by_source, by_modality = parts.means(sums[1:].view(-1, 2))
    if not torch.isfinite(sums[0]):
        sources = [name for name, value in by_source.items() if not math.isfinite(value)]
        raise NotFiniteError(f"the loss became {sums[0].item()}", sources)
    if not math.isfinite(grad_norm) and train.dtype != "fp16":  # fp16 skips such steps and scales its loss anew
        raise NotFiniteError(f"the gradient's norm became {grad_norm}")
    _, num_tokens, votes = totals.tolist()
    return StepResult(sums[0].item(), grad_norm, int(num_tokens), by_source, by_modality, votes > 0)


def _trainable(engine: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
