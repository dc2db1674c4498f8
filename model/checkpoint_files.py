"""The files of a checkpoint: shards, manifest, what is complete, what is intact, what is kept. No process group.

A folder step-000200/ holds

    shard<rank>.safetensors   `<name>|<state>|<start>` -> float32 values of a parameter from `start` on, for the
                              weights and each state of the optimizer; RNG states in its metadata
    manifest.json             what was saved by whom at which step, with size and checksum of every shard; written
                              last, so a set without it is not one
"""

import json
import re
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from data import storage
from data.errors import InputError

CHECKPOINTS = "checkpoints"  # of a run folder: where its step-NNNNNN/ are
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
WEIGHT = "weight"
CHUNK_BYTES = 1 << 24
_NAME = re.compile(r"step-(\d+)$")


def step_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps of the run."""
    return f"step-{step:06d}"


def step_of(folder: str) -> int:
    """The steps done in a checkpoint, from its folder's name."""
    return int(folder.rstrip("/").rsplit("-", 1)[-1])


def shard_name(rank: int) -> str:
    """File name of a worker's shard."""
    return f"shard{rank}.safetensors"


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
    try:
        manifest = storage.read_json(path)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): use the checkpoint before it") from None
    if manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has format_version {manifest.get('format_version')!r}, this code reads {FORMAT_VERSION}"
        )
    return manifest


def newest_readable(folder: str) -> tuple[str, dict[str, Any]] | None:
    """The newest complete checkpoint below `folder` whose manifest can be read, and that; its shards are not read."""
    for path in reversed(complete_checkpoints(folder)):
        try:
            return path, read_manifest(path)
        except InputError:
            continue
    return None


@dataclass(frozen=True)
class ShardFacts:
    """What a manifest says of a shard."""

    num_bytes: int
    crc32: int


def shard_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """About what a shard of these tensors takes on storage."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def no_one() -> None:
    """Who is told that a long operation gets on, where nobody watches it."""


def write_shard(
    path: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], alive: Callable[[], None] = no_one
) -> ShardFacts:
    """Write contiguous float32 CPU tensors as safetensors, piece by piece: no second copy in memory. `alive` is called
    after each."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for key, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[key] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    crc = 0
    num_bytes = 0
    with storage.writing(path) as handle:
        for piece in (len(text).to_bytes(8, "little"), text, *(_raw(tensor) for tensor in tensors.values())):
            handle.write(piece)
            crc = zlib.crc32(piece, crc)
            num_bytes += len(piece)
            alive()
    return ShardFacts(num_bytes, crc)


def damage(folder: str, rank: int, manifest: Mapping[str, Any], alive: Callable[[], None] = no_one) -> str | None:
    """What is wrong with a worker's shard, read in full; None when nothing is. `alive` is called as it gets on."""
    path = storage.join(folder, shard_name(rank))
    told = manifest["shards"][rank]
    if not storage.exists(path):
        return f"{path} is missing"
    num_bytes, crc = 0, 0
    with storage.open_seekable(path) as handle:
        while piece := handle.read(CHUNK_BYTES):
            num_bytes += len(piece)
            crc = zlib.crc32(piece, crc)
            alive()
    if num_bytes != told["num_bytes"]:
        return f"{path} has {num_bytes} of its {told['num_bytes']} bytes"
    return None if crc == told["crc32"] else f"{path} has another checksum than it was written with"


def delete_checkpoint(folder: str) -> None:
    """Remove a checkpoint, its manifest first: whoever is killed meanwhile leaves no half of one that looks whole."""
    storage.delete(storage.join(folder, MANIFEST))
    storage.delete(folder)


def assemble_weights(folder: str, alive: Callable[[], None] = no_one) -> dict[str, torch.Tensor]:
    """Every saved parameter in full, float32, by name: no process group and no engine needed. `alive` is called as it
    gets on."""
    manifest = read_manifest(folder)
    weights = {}
    with ShardReader(folder, manifest, alive) as reader:
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
    """Reads any range of any parameter or state out of a checkpoint's shards. Of local files only those bytes are
    read; from an object store the headers, and a shard whole when something in it is first asked for. `alive` is
    called as it gets on.

    Raises InputError, on entry, for a shard that is missing or no shard.
    """

    def __init__(self, folder: str, manifest: Mapping[str, Any], alive: Callable[[], None] = no_one) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self._folder, self._manifest, self._alive = folder, manifest, alive
        self._headers: list[dict[str, Any]] = []
        self._files: dict[int, Any] = {}
        self._pieces: dict[tuple[str, str], list[_Piece]] = defaultdict(list)

    def __enter__(self) -> "ShardReader":
        for rank in range(self._manifest["world_size"]):
            header = _read_header(storage.join(self._folder, shard_name(rank)), self._manifest["shards"][rank])
            self._headers.append(header.pop("__metadata__", {}))
            for key, about in header.items():
                name, state, start = key.split("|")
                self._pieces[name, state].append(_Piece(int(start), about["shape"][0], rank, key))
            self._alive()
        return self

    def __exit__(self, *error: object) -> None:
        self._files.clear()
        self._scratch.cleanup()

    def metadata(self, rank: int) -> dict[str, str]:
        """The metadata of a worker's shard."""
        return self._headers[rank]

    def has(self, name: str, state: str) -> bool:
        """Whether there are values of this state of a parameter."""
        return bool(self._pieces.get((name, state)))

    def read(self, name: str, state: str, start: int, numel: int) -> torch.Tensor:
        """`numel` values from `start` on, float32. Raises InputError when the shards do not cover them."""
        result, covered = torch.empty(numel), 0
        for piece in self._pieces[name, state]:
            low, high = max(start, piece.start), min(start + numel, piece.start + piece.numel)
            if low < high:
                values = self._file(piece.shard).get_slice(piece.key)[low - piece.start : high - piece.start]
                result[low - start : high - start] = values
                covered += high - low
        if covered != numel:
            raise InputError(
                f"{self._folder} holds {covered} of the {numel} values of {name!r} ({state}) from {start} on: "
                "the checkpoint is damaged, use the one before it"
            )
        self._alive()
        return result

    def _file(self, rank: int) -> Any:
        if rank not in self._files:
            path = storage.join(self._folder, shard_name(rank))
            local = path
            if storage.is_url(path):
                local = storage.join(self._scratch.name, shard_name(rank))
                storage.copy_file(path, local)
            self._files[rank] = safe_open(local, framework="pt")
        return self._files[rank]


def _read_header(path: str, told: Mapping[str, int]) -> dict[str, Any]:
    """What safetensors say of themselves: key -> shape, and metadata. Raises InputError where there is none."""
    if not storage.exists(path):
        raise InputError(f"{path} is missing: the checkpoint is damaged, use the one before it")
    with storage.open_seekable(path) as handle:
        size = int.from_bytes(handle.read(8), "little")
        text = handle.read(size) if size <= told["num_bytes"] else b""
    try:
        header: dict[str, Any] = json.loads(text)
    except ValueError:
        raise InputError(f"{path} is no shard: the checkpoint is damaged, use the one before it") from None
    return header


def _raw(tensor: torch.Tensor) -> Any:
    array: Any = tensor.numpy()
    return memoryview(array).cast("B") if tensor.numel() else memoryview(b"")
