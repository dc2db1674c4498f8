"""How much memory a worker will need, before it starts, and which knob to turn when that is too much.

Model states follow the ZeRO paper (Rajbhandari et al. 2020) and are exact to some per cent; activations follow the
counting of Korthikanti et al. 2022 for a gated MLP with FlashAttention-like attention and are rough. Weights are
float32 under bf16 autocast, float16 with float32 masters under fp16.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from data.errors import InputError
from model.cross_entropy import CHUNK_BYTES, choose_cross_entropy
from model.lm import plain_language_model
from model.train_config import TrainConfig

BUCKET = 500_000_000  # DeepSpeed's default zero_optimization.reduce_bucket_size, in values
MAX_LIVE = 1_000_000_000  # and its stage3_max_live_parameters: gathered values that stay for the backward pass


@dataclass(frozen=True)
class ModelShape:
    """What memory depends on. `parameters` counts tied weights once; `trainable` are those with a gradient."""

    parameters: int
    trainable: int
    layers: int
    width: int
    attention_width: int
    mlp_width: int
    vocabulary: int

    @classmethod
    def of(cls, model: Any) -> "ModelShape":
        """Of a causal LM, adapters included; one on the meta device will do. Call it before ZeRO-3 parts it."""
        config = plain_language_model(model).config
        heads = config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        return cls(
            parameters=sum(weight.numel() for weight in model.parameters()),
            trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            attention_width=(heads + key_heads) * head_width,
            mlp_width=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            vocabulary=config.vocab_size,
        )


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one worker: on its device, and on the host what is offloaded there, what a checkpoint is copied to until
    it is written (at stage 0 by worker 0 alone), and worker 0's second model, which the probe decodes with.
    `copies` are those that a step makes on a CPU, at zero_stage 1 to 3."""

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    copies: int
    activations: int
    logits: int
    offloaded: int
    snapshot: int
    probe: int

    @property
    def host(self) -> int:
        """Everything on the host, the device aside."""
        return self.offloaded + self.snapshot + self.probe

    @property
    def states(self) -> int:
        """Weights, gradients and optimizer state on the device."""
        return self.weights + self.gradients + self.optimizer

    @property
    def device(self) -> int:
        """Everything on the device."""
        return self.states + self.buffers + self.copies + self.activations + self.logits

    def line(self) -> str:
        """All parts in words."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        spelled = ", ".join(f"{name} {_spell(size)}" for name, size in parts.items() if size)
        return f"{_spell(self.device)} a worker, {_spell(self.states)} of it model states ({spelled})"


def estimate_memory(shape: ModelShape, train: TrainConfig, world_size: int, dtype: str, gpu: bool) -> MemoryEstimate:
    """The estimate for one of `world_size` workers."""
    stage, trainable = train.zero_stage, shape.trainable
    value_bytes = 2 if dtype == "fp16" else 4

    def share(size: int, from_stage: int) -> int:
        return -(-size // world_size) if stage >= from_stage else size

    weights = share(value_bytes * shape.parameters, 3)
    gradients = share(value_bytes * trainable, 2)
    # Two Adam moments; under ZeRO the partition's float32 master copy as well. (DeepSpeed's stage 3 would spare it for
    # float32 weights, but compares a torch.device with a string, which are never equal.)
    optimizer = share(8 * trainable, 1) + (share(4 * trainable, 1) if stage else 0)
    offloaded = 0
    if train.offload_optimizer != "none":
        moved = optimizer + share(4 * trainable, 1)  # with the partition's gradients, which are added up there
        offloaded += moved if train.offload_optimizer == "cpu" else 0
        optimizer = 0
    if train.offload_parameters != "none":
        offloaded += weights if train.offload_parameters == "cpu" else 0
        weights = 0
    bucket = BUCKET if gpu else min(BUCKET, trainable)  # a CPU touches only the pages that it uses
    buffers = value_bytes * bucket if stage else 0
    if stage == 3:  # gathered: one layer and the head at least
        layer_and_head = shape.parameters // max(1, shape.layers) + shape.vocabulary * shape.width
        buffers += value_bytes * max(layer_and_head, min(shape.parameters, MAX_LIVE))
    # For a step DeepSpeed flattens the partition's gradients; AdamW that is not fused makes two temporaries of it.
    copies = share(4 * trainable, 1) * (3 if train.offload_optimizer == "none" else 1) if stage and not gpu else 0
    tokens = train.micro_batch_rows * train.sequence_length
    activations, logits = _activations(shape, train, tokens, dtype), _logits(shape, train, tokens, gpu)
    snapshot = share(12 * trainable, 1)
    # The second model, its weights made ready for decoding, and what was gathered to fill it.
    probe = 8 * shape.parameters + 4 * trainable if train.validate_every and train.probe_utterances else 0
    return MemoryEstimate(
        weights, gradients, optimizer, buffers, copies, activations, logits, offloaded, snapshot, probe
    )


def _activations(shape: ModelShape, train: TrainConfig, tokens: int, dtype: str) -> int:
    """The residual stream is float32; what enters matrix products has `dtype`."""
    low = 4 if dtype == "fp32" else 2
    layer = tokens * (4 * 4 * shape.width + low * (2 * shape.width + 2 * shape.attention_width + 4 * shape.mlp_width))
    if train.activation_checkpointing:
        return layer + shape.layers * tokens * 4 * shape.width
    return layer * shape.layers


def _logits(shape: ModelShape, train: TrainConfig, tokens: int, gpu: bool) -> int:
    way = "chunked" if train.cross_entropy == "liger" else choose_cross_entropy(
        train.cross_entropy, tokens, shape.vocabulary
    )  # fmt: skip
    if way == "whole":
        return 3 * 4 * tokens * shape.vocabulary
    return 3 * CHUNK_BYTES["cuda" if gpu else "cpu"] + 6 * shape.vocabulary * shape.width


def advise(
    shape: ModelShape, train: TrainConfig, world_size: int, dtype: str, gpu: bool, device_bytes: int, host_bytes: int
) -> str | None:
    """None when the estimate fits; else the fewest knobs, tried in the order of what they cost, that make it fit."""

    def fits(changed: TrainConfig) -> bool:
        found = estimate_memory(shape, changed, world_size, dtype, gpu)
        if gpu:
            return found.device <= device_bytes and found.host <= host_bytes
        return found.device + found.host <= device_bytes

    if fits(train):
        return None
    for knobs in _knobs(train, world_size, gpu):
        if fits(train.model_copy(update=knobs)):
            return "set " + ", ".join(f"train.{name}={str(value).lower()}" for name, value in knobs.items())
    return "use more workers at train.zero_stage=3, a smaller model or shorter rows: no setting of train makes it fit"


def _knobs(train: TrainConfig, world_size: int, gpu: bool) -> Iterator[dict[str, Any]]:
    """Each cheap knob alone, then all of them, then with more and more partitioning and offload."""
    cheap: dict[str, Any] = {}
    if train.validate_every and train.probe_utterances:
        cheap["probe_utterances"] = 0
    if train.cross_entropy == "whole":
        cheap["cross_entropy"] = "chunked"
    if train.micro_batch_rows > 1:
        cheap["micro_batch_rows"] = 1
    if not train.activation_checkpointing:
        cheap["activation_checkpointing"] = True
    yield from ({name: value} for name, value in cheap.items())
    yield cheap
    stages = range(train.zero_stage + 1, 4) if train.optimizer == "adamw" and world_size > 1 else ()
    for stage in stages:
        yield {"zero_stage": stage}
        yield {**cheap, "zero_stage": stage}
    if gpu and train.optimizer == "adamw":
        yield {**cheap, "zero_stage": max(2, train.zero_stage), "offload_optimizer": "cpu"}
        yield {**cheap, "zero_stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"}


def check_memory(lm: Any, train: TrainConfig, world_size: int, dtype: str) -> str:
    """A line for the log about a model that is on its device and about to train.

    Raises InputError, naming the knob, when the model's states alone do not fit into what is free; where only the
    rough rest would not, the line says so.
    """
    device = next(lm.parameters()).device
    gpu = device.type == "cuda"
    shape = ModelShape.of(lm)
    here = sum(weight.numel() * weight.element_size() for weight in lm.parameters())  # taken already
    host = _free_host_bytes()
    free = here + (_free_device_bytes(device) if gpu else host)
    found = estimate_memory(shape, train, world_size, dtype, gpu)
    line = f"memory about {found.line()}, free {_spell(free)}"
    advice = advise(shape, train, world_size, dtype, gpu, free, host)
    if advice is None:
        return line
    if found.states + (0 if gpu else found.offloaded) > free or (gpu and found.offloaded > host):
        raise InputError(f"{line}: the model's states do not fit; {advice}")
    return f"{line}: may not fit; {advice}"


def _free_device_bytes(device: torch.device) -> int:
    """Of a GPU, with what PyTorch keeps for itself of a phase that has ended."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _free_host_bytes() -> int:
    """Of this machine or container, shared out over its workers (LOCAL_WORLD_SIZE, which Ray and torchrun set)."""
    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, max(0, int(text) - int(used.read_text())))
    return free // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _spell(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
