"""Weights that a user brings to an audio tokenizer: found, named by content, and kept beside the tokenizer.

A configuration names them in `path` and in fields that end in `_path`: a local folder or file, a URL, or (`path`
alone) a hub id with its commit as `revision`. What is local is copied below the tokenizer's folder: a model folder
stays whole wherever it is carried. What comes from the hub is recorded as id and commit.
"""

import os
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from data import storage
from data.errors import InputError

WEIGHTS_FOLDER = "weights"
_KEPT = (".json", ".safetensors")


def brought_paths(config: BaseModel) -> dict[str, str]:
    """Field -> path of everything local or at a URL that `config` brings; hub ids are left out."""
    named = {name: getattr(config, name) for name in type(config).model_fields if name == "path" or _is_path(name)}
    return {name: path for name, path in named.items() if path and storage.exists(path)}


def unpinned(config: BaseModel) -> str | None:
    """The hub id that `config` names without a commit; nothing is asked of the hub."""
    path, revision = getattr(config, "path", None), getattr(config, "revision", None)
    may_be_pinned = "revision" in type(config).model_fields
    return path if may_be_pinned and path and not revision and not storage.exists(path) else None


def content_ids(config: BaseModel) -> list[str]:
    """Hashes of what `config` brings, in order of the fields: what enters a job's id in place of the paths."""
    return [content_id(path) for _, path in sorted(brought_paths(config).items())]


def content_id(path: str) -> str:
    """SHA-256 of a file, or of the weights and settings in a folder. Read once per process and state of the files."""
    if storage.is_url(path):
        return _hash(path, ())
    names = weight_files(path) if os.path.isdir(path) else [""]
    stats = [os.stat(os.path.join(path, name) if name else path) for name in names]
    return _hash(path, tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))


def weight_files(folder: str) -> list[str]:
    """The files of a model folder that count: settings and safetensors at its top level."""
    return [name for name in storage.list_files(folder) if "/" not in name and name.endswith(_KEPT)]


def bring_weights(path: str, revision: str | None, folder: str) -> dict[str, Any]:
    """Copy a model folder to `folder`/weights, or pin a hub id; returns what `weights_location` wants to be told.

    Raises InputError for a folder without config.json or safetensors, and for a hub id that cannot be resolved or is
    not pinned.
    """
    if not storage.exists(path):
        return {"path": path, "revision": pinned_revision(path, revision)}
    names = weight_files(path)
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise InputError(
            f"{path!r} holds {', '.join(names) or 'neither settings nor weights'}, expected config.json and "
            "*.safetensors: convert .bin and .pt files first, python -m model.convert SRC DST, and name DST"
        )
    for name in names:
        content = storage.read_bytes(storage.join(path, name))
        storage.write_bytes(storage.join(folder, WEIGHTS_FOLDER, name), content)
    return {"path": WEIGHTS_FOLDER, "revision": None}


def copy_weights(source_folder: str, folder: str, source: dict[str, Any]) -> None:
    """Copy what `bring_weights` brought to `source_folder` to another tokenizer's folder."""
    if source["path"] == WEIGHTS_FOLDER and storage.absolute(source_folder) != storage.absolute(folder):
        storage.copy_folder(storage.join(source_folder, WEIGHTS_FOLDER), storage.join(folder, WEIGHTS_FOLDER))


def weights_location(folder: str, source: dict[str, Any]) -> tuple[str, str | None]:
    """(path, revision) for `from_pretrained` of weights that `bring_weights` brought to `folder`."""
    if source["path"] == WEIGHTS_FOLDER:
        return str(storage.local_folder(storage.join(folder, WEIGHTS_FOLDER))), None
    return source["path"], source["revision"]


def _is_path(name: str) -> bool:
    return name.endswith("_path")


def pinned_revision(hub_id: str, revision: str | None) -> str:
    """`revision`, which is the commit behind a hub id; from the cache where it lies there.

    Raises InputError that names the commit where none is given, or a branch or tag: the id of a run hangs on what the
    recipe says, and would stay where the weights move on.
    """
    from transformers.utils.hub import cached_file, extract_commit_hash

    asked = revision or "main"
    try:
        found = cached_file(hub_id, "config.json", revision=asked)
    except OSError as error:
        raise InputError(
            f"path {hub_id!r} is neither a folder here nor a model that the hub gives "
            f"(revision {asked}): {str(error).splitlines()[0]}"
        ) from None
    commit = extract_commit_hash(found, None)
    if commit is not None and commit == revision:
        return commit
    raise InputError(
        f"path {hub_id!r} is a hub id and revision is {revision!r}, which may mean other weights tomorrow: give the "
        f"commit, revision: {commit or '(see the model page)'}, which {asked} is now"
    )


@lru_cache(maxsize=64)
def _hash(path: str, state: tuple[tuple[int, int], ...]) -> str:
    """`state` is what makes a cached hash invalid once local files change."""
    names = weight_files(path)
    if not names and not os.path.isdir(path):
        return storage.hash_bytes(storage.read_bytes(path))
    return storage.hash_json({name: storage.hash_bytes(storage.read_bytes(storage.join(path, name))) for name in names})
