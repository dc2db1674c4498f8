"""What can be said of the pretrained weights that a recipe names before any work begins."""

import os
from collections.abc import Callable, Mapping

from pydantic import BaseModel

from data import storage
from data.errors import InputError
from model.audio_tokenizers.brought import pinned_revision, unpinned


def weight_lines(named: Mapping[str, str | None]) -> list[str]:
    """One line for each key of the recipe that names weights. Raises InputError for paths where there is nothing.

    What is neither here, nor written like a path, is a hub id; a `*_path` never is one. Nothing is fetched.
    """
    given = {key: path for key, path in named.items() if path}
    here = {key: storage.exists(path) for key, path in given.items()}
    missing = [
        f"{key}={path!r}" for key, path in given.items() if not here[key] and (key.endswith("_path") or _is_place(path))
    ]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: nothing is there; give a folder, a URL or the id of a model on the hub"
        )
    return [
        f"weights {key}: {path}  ({'here' if here[key] else 'fetched from the hub when they are needed'})"
        for key, path in given.items()
    ]


def weight_paths(prefix: str, config: BaseModel | None) -> dict[str, str | None]:
    """The fields `path` and `*_path` of a part of the recipe, by key."""
    if config is None:
        return {}
    names = [name for name in type(config).model_fields if name == "path" or name.endswith("_path")]
    return {f"{prefix}.{name}": getattr(config, name) for name in names}


def pin_lines(configs: Mapping[str, BaseModel | None]) -> list[str]:
    """One line for each part of the recipe, by key, whose hub id has no commit; nothing is asked of the hub."""
    return [
        f"missing {key}.revision: the commit of {path}; no work begins before it is given"
        for key, path in _unpinned(configs).items()
    ]


def with_pins(look: Callable[[], list[str]], configs: Mapping[str, BaseModel | None]) -> list[str]:
    """What `look` finds, then `pin_lines`; where it raises InputError, these stand in it as well."""
    pins = pin_lines(configs)
    try:
        return look() + pins
    except InputError as error:
        raise InputError("\n".join([str(error), *pins])) from None


def check_pins(configs: Mapping[str, BaseModel | None]) -> None:
    """Raises InputError that names the present commits of the hub ids without one."""
    problems = []
    for key, path in _unpinned(configs).items():
        try:
            pinned_revision(path, None)
        except InputError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise InputError("\n".join(problems))


def _unpinned(configs: Mapping[str, BaseModel | None]) -> dict[str, str]:
    return {key: path for key, config in configs.items() if config is not None and (path := unpinned(config))}


def _is_place(path: str) -> bool:
    return storage.is_url(path) or os.path.isabs(path) or path.startswith(".") or path.count("/") > 1
