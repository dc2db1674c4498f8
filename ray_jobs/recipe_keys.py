"""The keys of a recipe as `--help` lists them, each once."""

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ray_jobs.recipe import models_in


def key_lines(model: type[BaseModel]) -> list[str]:
    """One line per key, with its default and description; NAME and N stand for a mapping's names, a list's places.

    Where a `kind` chooses between models, a kind's line is followed by the keys that those before it do not have.
    """
    lines: dict[str, None] = {}  # a set that keeps the order
    _describe(model, "", lines, {})
    return list(lines)


def _describe(model: type[BaseModel], prefix: str, lines: dict[str, None], places: dict[type[BaseModel], str]) -> None:
    if places.setdefault(model, prefix) != prefix:
        lines[f"  {prefix}*  as {places[model]}*"] = None
        return
    for name, info in sorted(model.model_fields.items(), key=lambda field: field[0] != "kind"):
        key = f"{prefix}{name}"
        below = models_in(info.annotation)
        for inner in below:
            _describe(inner, f"{key}{_place(info.annotation)}.", lines, places)
        if not below:
            lines[f"  {key}{_value(info)}  {info.description or ''}".rstrip()] = None


def _place(annotation: Any) -> str:
    """How an override names one item of a field that holds several; '' where it holds one."""
    if get_origin(annotation) is dict:
        return ".NAME"
    if get_origin(annotation) in (list, tuple):
        return ".N"
    return next((place for inner in get_args(annotation) if (place := _place(inner))), "")


def _value(info: FieldInfo) -> str:
    """The only value that a field takes, or else its default."""
    if get_origin(info.annotation) is Literal and len(choices := get_args(info.annotation)) == 1:
        return f": {choices[0]}"
    return "" if info.is_required() else f" [{info.default!r}]"
