"""Where DeepSpeed keeps which piece of which weight: the one file that reads its private attributes.

A weight's float32 master copy and Adam state are pieces of flat tensors, laid out by zero_stage:
0: whole parameters; 1, 2: each worker a slice of the concatenated parameters; 3: each worker a slice of every
parameter. Written against DeepSpeed 0.19; a missing attribute raises RuntimeError instead of losing state.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

STATES = ("exp_avg", "exp_avg_sq", "momentum_buffer")  # AdamW's two, Muon's one
PREFIX = "lm."  # model.train_step.StepLoss holds the language model under this name


@dataclass(frozen=True)
class Fragment:
    """`numel` values of parameter `name` from `start` on, kept in `flat` from `flat_start` on."""

    name: str
    start: int
    numel: int
    flat: torch.Tensor
    flat_start: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """This fragment's view of a tensor laid out like `flat` (the weights, or a state)."""
        return flat.detach().view(-1).narrow(0, self.flat_start, self.numel)


def parameter_shapes(engine: Any) -> dict[str, list[int]]:
    """Name -> full shape of every trainable parameter, tied ones once."""
    return {
        name: list(getattr(parameter, "ds_shape", parameter.shape))
        for name, parameter in _named(engine)
        if parameter.requires_grad
    }


def owned_fragments(engine: Any) -> list[Fragment]:
    """The fragments that live on this worker."""
    stage = engine.zero_optimization_stage()
    try:
        layout = {0: _whole, 1: _sliced, 2: _sliced, 3: _partitioned}[int(stage)]
        return list(layout(engine, {id(parameter): name for name, parameter in _named(engine)}))
    except AttributeError as error:
        raise RuntimeError(
            f"this DeepSpeed keeps its zero_stage {stage} state elsewhere ({error}): pin 0.19"
        ) from error


def optimizer_states(engine: Any) -> Any:
    """flat tensor -> state of the optimizer that really steps."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer).state


def counts_in_tensors(engine: Any) -> bool:
    """Whether the optimizer keeps its count of steps in tensors; DeepSpeed's Adam for CPUs takes plain numbers."""
    return type(getattr(engine.optimizer, "optimizer", engine.optimizer)).__name__ != "DeepSpeedCPUAdam"


def refresh_weights(engine: Any) -> None:
    """Make the weights that the forward pass reads equal to the master copies, on every worker.

    All workers must call it.
    """
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage in (1, 2):
        optimizer.update_lp_params()
        optimizer._hp_optimizer_states_linked = False  # safe_get_* find the new state tensors at their next use
    if stage == 3:
        for index, master in enumerate(optimizer.fp32_partitioned_groups_flat):
            optimizer.fp16_partitioned_groups_flat[index].data.copy_(master.data)
            optimizer._unflatten_partitioned_parameters(index)
        persistent = optimizer.persistent_parameters
        if persistent:
            persistent[0].partition(persistent)
            persistent[0].all_gather(persistent)


def _named(engine: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in engine.module.named_parameters():
        yield name.removeprefix(PREFIX), parameter


def _whole(engine: Any, names: dict[int, str]) -> Iterator[Fragment]:
    for group in engine.optimizer.param_groups:
        for parameter in group["params"]:
            yield Fragment(names[id(parameter)], 0, parameter.numel(), parameter, 0)


def _sliced(engine: Any, names: dict[int, str]) -> Iterator[Fragment]:
    optimizer = engine.optimizer
    for flat, group in zip(optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups, strict=True):
        for parameter in group:
            mapping = parameter._hp_mapping
            if mapping is not None:
                kept, source = mapping.hp_fragment_address, mapping.lp_fragment_address
                yield Fragment(names[id(parameter)], source.start, source.numel, flat, kept.start)


def _partitioned(engine: Any, names: dict[int, str]) -> Iterator[Fragment]:
    optimizer, rank = engine.optimizer, torch.distributed.get_rank()
    for flat, group in zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True):
        offset = 0
        for parameter in group:
            size = parameter.partition_numel()
            start = rank * size
            numel = min(size, parameter.ds_numel - start)  # the rest of the last slices is padding
            if numel > 0:
                yield Fragment(names[id(parameter)], start, numel, flat, offset)
            offset += size
