"""The DeepSpeed JSON of a run: what our own fields say, and what a recipe passes through."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from data.errors import InputError

log = logging.getLogger("antiphon")

if TYPE_CHECKING:
    from model.train_config import TrainConfig

ZERO = "zero_optimization"
# What our own fields decide, with the field. A recipe's train.deepspeed must not say it a second time.
OWNED = {
    "train_batch_size": "train.global_batch_rows",
    "train_micro_batch_size_per_gpu": "train.micro_batch_rows",
    "gradient_accumulation_steps": "train.global_batch_rows and train.micro_batch_rows",
    "gradient_clipping": "train.clip_grad_norm",
    "optimizer": "train.optimizer",
    "scheduler": "train.phases[*].schedule",
    "bf16": "train.dtype",
    "fp16.enabled": "train.dtype",
    "torch_autocast": "train.dtype",
    "activation_checkpointing": "train.activation_checkpointing",
    "compile": "train.compile",
    f"{ZERO}.stage": "train.zero_stage",
    f"{ZERO}.offload_optimizer.device": "train.offload_optimizer",
    f"{ZERO}.offload_optimizer.nvme_path": "train.offload_path",
    f"{ZERO}.offload_param.device": "train.offload_parameters",
    f"{ZERO}.offload_param.nvme_path": "train.offload_path",
}
# What would break something of ours, with the reason.
REFUSED = {
    f"{ZERO}.round_robin_gradients": "checkpoints would hold wrong weights, silently",
    f"{ZERO}.elastic_checkpoint": "our checkpoints resume on any number of workers already",
    f"{ZERO}.cpu_offload": "it is the old name of train.offload_optimizer=cpu",
    f"{ZERO}.compute_grad_norm": "every step tells its gradient's norm",
    f"{ZERO}.zenflow": "checkpoints would lack its states",
    f"{ZERO}.offload_optimizer.super_offload": "checkpoints would lack its states",
    "checkpoint.load_universal": "checkpoints are read by model/checkpoint.py",
    "managed_gradient_accumulation": "every forward pass would become a step",
    "gradient_allreduce_op": "the loss is scaled for gradients that are averaged",
    "zero_force_ds_cpu_optimizer": "model/optimizers.py decides what steps",
    "pipeline": "pipeline parallelism is not built in",
    "tensor_parallel": "tensor parallelism is not built in",
    "elasticity": "checkpoints resume on any number of workers already",
}


NVME = "offloading to NVMe is untested, and no checkpoint can be saved of states that lie there"


def check_saved(train: TrainConfig) -> None:
    """Raises InputError where no checkpoint could be saved: a training without one leaves nothing."""
    if train.offload_path is not None:
        raise InputError(f"train.offload_path={train.offload_path!r}: {NVME}; offload to cpu, or use more workers")


def check_understood(train: TrainConfig) -> None:
    """Raises InputError for a train.deepspeed that DeepSpeed refuses, and warns of keys that it passes over in silence.
    Its import takes seconds, so only where there is one."""
    if train.deepspeed:
        config = _Asked(deepspeed_config(train, 1))
        understood(config)
        for key in sorted(set(train.deepspeed) - config.asked):
            log.warning("train.deepspeed sets %r, which DeepSpeed does not read: is it spelt right?", key)


class _Asked(dict[str, Any]):
    """A configuration that knows which of its keys its reader has asked for."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.asked: set[Any] = set()

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: Any) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(key)
        return super().__contains__(key)

    def keys(self) -> Any:
        return self


def understood(config: dict[str, Any]) -> None:
    """Have DeepSpeed read a configuration. Raises InputError with its complaint."""
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    try:
        DeepSpeedConfig(config)
    except (
        ValueError,
        TypeError,
        KeyError,
        AssertionError,
        DeepSpeedConfigError,
    ) as error:  # pydantic's is a ValueError
        raise InputError(f"DeepSpeed does not take this configuration, look at train.deepspeed: {error}") from None


def check_extra(extra: Mapping[str, Any]) -> None:
    """Raises ValueError, naming key and field, where train.deepspeed says what a field of ours says."""
    for path in _paths(extra):
        for key, field in OWNED.items():
            if _touches(path, key):
                raise ValueError(f"train.deepspeed sets {path!r}, which {field} decides: set that instead")
        for key, reason in REFUSED.items():
            if _touches(path, key):
                raise ValueError(f"train.deepspeed sets {path!r}: {reason}; leave it out")


def _paths(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of the leaves."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _touches(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.")


def padded_rows(global_rows: int, micro_rows: int, world_size: int) -> int:
    """Rows of a step when every worker gets the same whole number of micro-batches; the added rows are empty."""
    per_round = micro_rows * world_size
    return -(-global_rows // per_round) * per_round


def deepspeed_config(train: TrainConfig, world_size: int) -> dict[str, Any]:
    """The DeepSpeed JSON of a run. Accumulation follows from the batch sizes, so it fits any number of workers."""
    zero: dict[str, Any] = {"stage": train.zero_stage, "overlap_comm": False}
    for key, device in (("offload_optimizer", train.offload_optimizer), ("offload_param", train.offload_parameters)):
        if device != "none":
            path = {"nvme_path": train.offload_path} if device == "nvme" else {}
            zero[key] = {"device": device, "pin_memory": train.num_gpus > 0, **path}
    config: dict[str, Any] = {
        "train_batch_size": padded_rows(train.global_batch_rows, train.micro_batch_rows, world_size),
        "train_micro_batch_size_per_gpu": train.micro_batch_rows,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
        ZERO: zero,
    }
    if train.zero_stage:
        config["gradient_clipping"] = train.clip_grad_norm  # at stage 0 `run_step` clips, to learn the norm
    if train.offload_optimizer != "none":
        config["zero_force_ds_cpu_optimizer"] = False  # `build_optimizer` decides which AdamW steps there
    if train.dtype == "fp16":
        config["fp16"] = {"enabled": True}  # loss_scale 0 by default: dynamic
    return merge(config, train.deepspeed)


def merge(config: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with `extra` laid over it, section by section. Raises InputError where a section meets a value."""
    result = dict(config)
    for key, value in extra.items():
        ours = result.get(key)
        if isinstance(ours, Mapping) != isinstance(value, Mapping) and ours is not None:
            raise InputError(f"train.deepspeed: {key!r} is {value!r}, expected a section")
        result[key] = merge(ours, value) if isinstance(ours, Mapping) else value
    return result
