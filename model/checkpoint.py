"""Checkpoints: sharded by worker, loadable on any number of workers and at any zero_stage.

A folder step-000200/ holds

    shard<rank>.safetensors   `<name>|<state>|<start>` -> float32 values of a parameter from `start` on, for the
                              states weight, exp_avg and exp_avg_sq; RNG states in its metadata
    manifest.json             what was saved by whom at which step; written last, so a set without it is not one

Nothing is gathered: each worker writes what it owns, and reads only the ranges that it will own.
"""

import base64
import json
import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save

from data import storage
from data.errors import InputError
from model.fragments import STATES, Fragment, optimizer_states, owned_fragments, parameter_shapes, refresh_weights

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHT = "weight"
_NAME = re.compile(r"step-(\d+)$")


def step_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps of the run."""
    return f"step-{step:06d}"


def complete_checkpoints(folder: str) -> list[str]:
    """Paths of the complete checkpoints below `folder`, oldest first. Raises nothing where the folder is absent."""
    manifests = [name for name in storage.list_files(folder) if name.endswith(f"/{MANIFEST}")]
    names = [name.removesuffix(f"/{MANIFEST}") for name in manifests]
    found = {int(match.group(1)): name for name in names if (match := _NAME.match(name))}
    return [storage.join(folder, found[step]) for step in sorted(found)]


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises InputError when the folder is none, or of another format."""
    path = storage.join(folder, MANIFEST)
    if not storage.exists(path):
        raise InputError(
            f"{folder!r} is no complete checkpoint: it has no {MANIFEST}; give a folder step-NNNNNN of one"
        )
    manifest = storage.read_json(path)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has format_version {manifest.get('format_version')!r}, this code reads {FORMAT_VERSION}"
        )
    return manifest


def save_checkpoint(folder: str, engine: Any, facts: Mapping[str, Any]) -> None:
    """Write this worker's shard, wait for the others', then rank 0 writes the manifest. All workers must call it.

    `facts` is JSON that the caller wants back: step, phase, cursor, schedule, base model.
    Only after a whole optimizer step: half an accumulation is not kept.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    stage = int(engine.zero_optimization_stage())
    fragments = owned_fragments(engine) if stage or rank == 0 else []
    storage.write_bytes(storage.join(folder, _shard(rank)), save(_pack(engine, fragments), {"rng": _rng_state()}))
    dist.barrier()
    if rank == 0:
        manifest = {
            **facts,
            "format_version": FORMAT_VERSION,
            "world_size": world_size,
            "zero_stage": stage,
            "parameters": parameter_shapes(engine),
            "optimizer_step": _optimizer_step(engine),
            "param_groups": [_plain_group(group) for group in engine.optimizer.param_groups],
            "engine": {key: getattr(engine, key) for key in ("global_steps", "global_samples", "skipped_steps")},
        }
        storage.write_json(storage.join(folder, MANIFEST), manifest)
    dist.barrier()


def load_checkpoint(folder: str, engine: Any) -> dict[str, Any]:
    """Put weights, optimizer state, counters and RNG of a checkpoint into a fresh engine; returns the manifest.

    Any number of workers and any zero_stage may load it, all of them together. RNG states are restored where the
    number of workers is the same. Raises InputError when parameters or shards do not fit.
    """
    manifest = read_manifest(folder)
    _check_parameters(manifest, engine, folder)
    with ShardReader(folder, manifest) as reader:
        _fill(engine, reader, manifest["optimizer_step"])
        if manifest["world_size"] == dist.get_world_size():
            _restore_rng(reader.metadata(dist.get_rank())["rng"])
    for group, saved in zip(engine.optimizer.param_groups, manifest["param_groups"], strict=True):
        group.update({key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()})
    for key, value in manifest["engine"].items():
        setattr(engine, key, value)
    refresh_weights(engine)
    return manifest


def assemble_weights(folder: str) -> dict[str, torch.Tensor]:
    """Every saved parameter in full, float32, by name: no process group and no engine needed."""
    manifest = read_manifest(folder)
    weights = {}
    with ShardReader(folder, manifest) as reader:
        for name, shape in manifest["parameters"].items():
            numel = int(np.prod(shape))
            weights[name] = reader.read(name, WEIGHT, 0, numel).view(shape)
    return weights


@dataclass(frozen=True)
class _Piece:
    start: int
    numel: int
    shard: int
    key: str


class ShardReader:
    """Reads any range of any parameter or state out of a checkpoint's shards; only those bytes are read."""

    def __init__(self, folder: str, manifest: Mapping[str, Any]) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self._folder, self._world_size = folder, manifest["world_size"]
        self._files: list[Any] = []
        self._pieces: dict[tuple[str, str], list[_Piece]] = defaultdict(list)

    def __enter__(self) -> "ShardReader":
        for rank in range(self._world_size):
            handle = safe_open(str(self._local(_shard(rank))), framework="pt")
            self._files.append(handle)
            for key in handle.keys():  # noqa: SIM118 (safe_open is no dict)
                name, state, start = key.split("|")
                numel = handle.get_slice(key).get_shape()[0]
                self._pieces[name, state].append(_Piece(int(start), numel, rank, key))
        return self

    def __exit__(self, *error: object) -> None:
        self._files.clear()
        self._scratch.cleanup()

    def metadata(self, rank: int) -> dict[str, str]:
        """The metadata of a worker's shard."""
        return self._files[rank].metadata()

    def read(self, name: str, state: str, start: int, numel: int) -> torch.Tensor:
        """`numel` values from `start` on, float32. Raises InputError when the shards do not cover them."""
        result, covered = torch.empty(numel), 0
        for piece in self._pieces[name, state]:
            low, high = max(start, piece.start), min(start + numel, piece.start + piece.numel)
            if low < high:
                values = self._files[piece.shard].get_slice(piece.key)[low - piece.start : high - piece.start]
                result[low - start : high - start] = values
                covered += high - low
        if covered != numel:
            raise InputError(
                f"{self._folder} holds {covered} of the {numel} values of {name!r} ({state}) from {start} on: "
                "the checkpoint is damaged, use the one before it"
            )
        return result

    def _local(self, name: str) -> Path:
        path = storage.join(self._folder, name)
        if not storage.exists(path):
            raise InputError(f"{path} is missing: the checkpoint is damaged, use the one before it")
        if not storage.is_url(path):
            return Path(path)
        local = Path(self._scratch.name) / name
        local.write_bytes(storage.read_bytes(path))
        return local


def _shard(rank: int) -> str:
    return f"shard{rank}.safetensors"


def _pack(engine: Any, fragments: list[Fragment]) -> dict[str, torch.Tensor]:
    """Key -> values of every fragment and its states, contiguous on the CPU."""
    states = optimizer_states(engine)
    packed = {}
    for fragment in fragments:
        state = states[fragment.flat]
        for kind, flat in ((WEIGHT, fragment.flat), *((kind, state[kind]) for kind in STATES)):
            packed[f"{fragment.name}|{kind}|{fragment.start}"] = fragment.of(flat).float().cpu().clone()
    return packed


def _fill(engine: Any, reader: ShardReader, optimizer_step: int) -> None:
    """Copy the owned ranges into the master weights and into fresh Adam states."""
    states = optimizer_states(engine)
    for fragment in owned_fragments(engine):
        fragment.of(fragment.flat).copy_(reader.read(fragment.name, WEIGHT, fragment.start, fragment.numel))
        if not states[fragment.flat]:  # created lazily by the first step, which has not been taken
            states[fragment.flat] = {kind: torch.zeros_like(fragment.flat) for kind in STATES}
        state = states[fragment.flat]
        state["step"] = torch.tensor(float(optimizer_step))  # a tensor of its own: shared ones would count twice
        for kind in STATES:
            fragment.of(state[kind]).copy_(reader.read(fragment.name, kind, fragment.start, fragment.numel))


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
    steps = {int(state["step"]) for state in optimizer_states(engine).values() if "step" in state}
    if len(steps) != 1:
        raise RuntimeError(f"the optimizer counts {sorted(steps)} steps: one number was expected after a whole step")
    return steps.pop()


def _plain_group(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in group.items()
        if isinstance(value, bool | int | float | tuple | list | None) and key != "params"
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
