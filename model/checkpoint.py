"""A training engine's state to and from checkpoints, on any number of workers and at any zero_stage.

Nothing is gathered: each worker hands out what it owns, and reads only the ranges that it will own. The files are
model/checkpoint_files.py's, when they are written model/checkpoint_writer.py's.
"""

import base64
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from data.errors import InputError
from model.checkpoint_files import FORMAT_VERSION, WEIGHT, ShardReader, no_one, read_manifest
from model.fragments import (
    STATES,
    Fragment,
    counts_in_tensors,
    optimizer_states,
    owned_fragments,
    parameter_shapes,
    refresh_weights,
)

LOSS_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")  # what changes as float16 trains
WAYS = ("fused", "foreach", "capturable", "differentiable")  # how an optimizer computes: by device, not by training


@dataclass(frozen=True)
class Snapshot:
    """What a worker owns of a checkpoint, copied to host memory: training may go on."""

    tensors: dict[str, torch.Tensor]
    rng: str
    manifest: dict[str, Any]


def take_snapshot(engine: Any, facts: Mapping[str, Any]) -> Snapshot:
    """This worker's part of a checkpoint. No communication; only after a whole optimizer step.

    `facts` is JSON that the caller wants back: step, phase, cursor, schedule, base model.
    """
    stage = int(engine.zero_optimization_stage())
    fragments = owned_fragments(engine) if stage or dist.get_rank() == 0 else []
    manifest = {
        **facts,
        "format_version": FORMAT_VERSION,
        "world_size": dist.get_world_size(),
        "zero_stage": stage,
        "parameters": parameter_shapes(engine),
        "optimizer_step": _optimizer_step(engine),
        "param_groups": [_plain_group(group) for group in engine.optimizer.param_groups],
        "loss_scale": {key: value for key, value in _loss_scaler(engine).items() if key in LOSS_SCALE},
        "engine": {key: getattr(engine, key) for key in ("global_steps", "global_samples", "skipped_steps")},
    }
    return Snapshot(_pack(engine, fragments), _rng_state(), manifest)


def load_checkpoint(folder: str, engine: Any, alive: Callable[[], None] = no_one) -> dict[str, Any]:
    """Put weights, optimizer state, counters and RNG of a checkpoint into a fresh engine; returns the manifest.

    Any number of workers and any zero_stage may load it, all of them together. RNG states are restored where the
    number of workers is the same. `alive` is called as it gets on. Raises InputError when parameters or shards do not
    fit.
    """
    manifest = read_manifest(folder)
    _check_parameters(manifest, engine, folder)
    with ShardReader(folder, manifest, alive) as reader:
        _fill(engine, reader, manifest["optimizer_step"])
        if manifest["world_size"] == dist.get_world_size():
            _restore_rng(reader.metadata(dist.get_rank())["rng"])
    for group, saved in zip(engine.optimizer.param_groups, manifest["param_groups"], strict=True):
        restored = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
        group.update({key: value for key, value in restored.items() if key not in WAYS})
    _loss_scaler(engine).update(manifest.get("loss_scale", {}))
    for key, value in manifest["engine"].items():
        setattr(engine, key, value)
    refresh_weights(engine)
    return manifest


def _pack(engine: Any, fragments: list[Fragment]) -> dict[str, torch.Tensor]:
    """Key -> values of every fragment and its states, contiguous on the CPU."""
    states = optimizer_states(engine)
    packed = {}
    for fragment in fragments:
        state = states[fragment.flat]
        for kind, flat in ((WEIGHT, fragment.flat), *((kind, state[kind]) for kind in STATES if kind in state)):
            packed[f"{fragment.name}|{kind}|{fragment.start}"] = fragment.of(flat).to("cpu", torch.float32, copy=True)
    return packed


def _fill(engine: Any, reader: ShardReader, optimizer_step: int) -> None:
    """Copy the owned ranges into the master weights and into fresh optimizer states."""
    states, counts = optimizer_states(engine), counts_in_tensors(engine)
    for fragment in owned_fragments(engine):
        kinds = [kind for kind in STATES if reader.has(fragment.name, kind)]
        if not states[fragment.flat]:  # created lazily by the first step, which has not been taken
            states[fragment.flat] = {kind: torch.zeros_like(fragment.flat) for kind in kinds}
        state = states[fragment.flat]
        if "exp_avg" in kinds:  # a tensor of its own: shared ones would count twice
            # Beside the weights: a fused optimizer's kernel reads the count where they are.
            state["step"] = (
                torch.tensor(float(optimizer_step), device=fragment.flat.device) if counts else optimizer_step
            )
        for kind, flat in ((WEIGHT, fragment.flat), *((kind, state[kind]) for kind in kinds)):
            fragment.of(flat).copy_(reader.read(fragment.name, kind, fragment.start, fragment.numel))


def _check_parameters(manifest: Mapping[str, Any], engine: Any, folder: str) -> None:
    saved, here = manifest["parameters"], parameter_shapes(engine)
    if saved != here:
        different = sorted(name for name in {*saved, *here} if saved.get(name) != here.get(name))
        name = different[0]
        raise InputError(
            f"{folder} is of another model: {name!r} is {saved.get(name)} there and {here.get(name)} here "
            f"({len(different)} differ); use the recipe that it was trained with"
        )


def _optimizer_step(engine: Any) -> int:
    """0 where nothing counts: Muon does not, nor an AdamW whose every step was skipped for overflow."""
    steps = {int(state["step"]) for state in optimizer_states(engine).values() if "step" in state}
    if len(steps) > 1:
        raise RuntimeError(f"the optimizer counts {sorted(steps)} steps: one number was expected after a whole step")
    return max(steps, default=0)


def _loss_scaler(engine: Any) -> dict[str, Any]:
    """The attributes of what scales losses for float16; empty at zero_stage 0, which has none."""
    return vars(engine.optimizer.loss_scaler) if hasattr(engine.optimizer, "loss_scaler") else {}


def _plain_group(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in group.items()
        if isinstance(value, bool | int | float | tuple | list | None) and key not in ("params", *WAYS)
    }


def _rng_state() -> str:
    """Python's, numpy's and torch's generators of this worker, as JSON."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 (libraries draw from it)
    cuda = _text(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None
    states = {
        "torch": _text(torch.get_rng_state()),
        "cuda": cuda,
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "python": random.getstate(),
    }
    return json.dumps(states)


def _restore_rng(text: str) -> None:
    states = json.loads(text)
    torch.set_rng_state(_tensor(states["torch"]))
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(states["cuda"]))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
