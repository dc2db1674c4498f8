"""The base of every configuration model: frozen, and closed to unknown keys."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """A configuration node. Unknown keys are errors; values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def placement(default: Any, description: str, **constraints: Any) -> Any:
    """A field that says where or how fast a job runs, never what it computes: it stays out of the run's id."""
    return Field(default, description=description, json_schema_extra={"changes_result": False}, **constraints)


def result_fields(config: BaseModel) -> dict[str, Any]:
    """The JSON form of `config` without its placement fields: what enters a run's id."""
    fields: dict[str, Any] = {}
    for name, info in type(config).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, Mapping) and extra.get("changes_result") is False:
            continue
        if isinstance(extra, Mapping) and extra.get("absent_when_default") and getattr(config, name) == info.default:
            continue  # a field that came later: the ids of runs that do not use it stay as they were
        fields[name] = _plain(getattr(config, name))
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return result_fields(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
