"""`python -m model.convert SRC DST`: published weights (.pt, .bin, pickled k-means, .npy) -> safetensors.

Jobs load safetensors only, which holds numbers and nothing that runs. This command is the one door for the rest: torch
files through `weights_only=True`, pickled k-means through `model.unpickle`.
"""

import argparse
import io
import os
import pickle
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from data import storage
from data.errors import InputError
from model.unpickle import checked_centroids, read_centroids

WEIGHTS_NAME = "model.safetensors"
CENTROIDS = "centroids"
_ENDINGS = (".pt", ".bin", ".pth", ".th", ".ckpt", ".pkl", ".joblib", ".npy")
_TORCH_ZIP, _NPY, _PICKLE = b"PK\x03\x04", b"\x93NUMPY", b"\x80"
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the pickled magic number of torch before 1.6
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x78")
_INSIDE = ("state_dict", "model", "generator", "best_state", "module")  # where trainers put the weights


def convert(source: str, target: str) -> str:
    """Write `target` (a .safetensors file, or a folder that gets model.safetensors) and return the file's path.

    `source` is a file, or a folder with one file of weights. JSON settings beside a torch file go with it into a target
    folder. Raises InputError for anything that is not plain weights.
    """
    path = _weights_of(source)
    content = storage.read_bytes(path)
    tensors, settings = _read(path, content)
    into_file = target.endswith(".safetensors")
    written = target if into_file else storage.join(target, WEIGHTS_NAME)
    storage.write_bytes(written, save(tensors, {"format": "pt"}))
    if settings and not into_file:
        _copy_settings(os.path.dirname(path) or ".", target)
    return written


def _weights_of(source: str) -> str:
    if not storage.exists(source):
        raise InputError(f"{source!r} is not there: give a file of weights or the folder that holds it")
    if storage.is_url(source) or not os.path.isdir(source):
        return source
    names = [name for name in storage.list_files(source) if "/" not in name and name.endswith(_ENDINGS)]
    if len(names) != 1:
        raise InputError(
            f"{source!r} holds {', '.join(names) or 'no file'} ending in {' '.join(_ENDINGS)}, expected one: "
            "give the file itself"
        )
    return storage.join(source, names[0])


def _read(path: str, content: bytes) -> tuple[dict[str, torch.Tensor], bool]:
    """Tensors by name, and whether settings beside the file belong to them. The content decides, not the ending."""
    if content.startswith((_TORCH_ZIP, _TORCH_LEGACY)):
        return _torch_weights(path, content), True
    if content.startswith(_NPY):
        centroids = checked_centroids(_array(path, content))
    elif content.startswith((_PICKLE, *_COMPRESSED)):
        centroids = read_centroids(content)
    else:
        raise InputError(
            f"{path!r} is neither a torch file, nor a pickled k-means, nor .npy (it begins with {content[:8]!r}): "
            "safetensors need no conversion, other formats are to be saved by torch.save first"
        )
    return {CENTROIDS: torch.from_numpy(centroids)}, False


def _array(path: str, content: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{path!r} is no array of numbers: {error}") from None


def _torch_weights(path: str, content: bytes) -> dict[str, torch.Tensor]:
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise InputError(
            f"{path!r} holds more than weights, or is damaged; nothing of it was run: {_reason(error)} "
            "If you trust it, open it where it was made and save the weights alone, "
            "torch.save(model.state_dict(), 'weights.pt')"
        ) from None
    state = _state_dict(found)
    if not state:
        raise InputError(f"{path!r} holds no tensors by name: save model.state_dict()")
    return {name: value.detach().contiguous().clone() for name, value in state.items()}


def _state_dict(found: Any) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, also where a trainer wrapped it."""
    if not isinstance(found, Mapping):
        return {}
    tensors = {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    wrapped = [_state_dict(found[key]) for key in _INSIDE if key in found]
    return tensors or next((state for state in wrapped if state), {})


def _reason(error: BaseException) -> str:
    """The part of torch's long message that names what it met."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "GLOBAL" in line or "global" in line), lines[0] if lines else "no message.")


def _copy_settings(folder: str, target: str) -> None:
    for name in storage.list_files(folder):
        if "/" not in name and name.endswith(".json") and not name.endswith(".index.json"):
            storage.write_bytes(storage.join(target, name), storage.read_bytes(storage.join(folder, name)))


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 and the written file's path, or 2 and what to do instead."""
    parser = argparse.ArgumentParser(prog="python -m model.convert", description="published weights -> safetensors")
    parser.add_argument("source", metavar="SRC", help="file (.pt .bin .pth .ckpt .pkl .npy) or folder with one")
    parser.add_argument("target", metavar="DST", help="folder, or a file ending in .safetensors")
    arguments = parser.parse_args(argv)
    try:
        print(convert(arguments.source, arguments.target))
    except InputError as error:
        print(f"model.convert: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
