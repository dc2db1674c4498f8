"""The published formats: one file each, with its configuration and its grammar. A file that is put here is found."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from data.grammar.sequence_format import SequenceFormat


def _found() -> dict[str, type[SequenceFormat]]:
    """kind -> configuration, of all files of this folder. Raises ValueError where two have the same kind."""
    kinds: dict[str, type[SequenceFormat]] = {}
    for file in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{file.name}")
        for member in vars(module).values():
            if isinstance(member, type) and issubclass(member, SequenceFormat) and member.__module__ == module.__name__:
                kind = member.model_fields["kind"].default
                if isinstance(kind, str) and kinds.setdefault(kind, member) is not member:
                    raise ValueError(f"{member} and {kinds[kind]} are both of kind {kind!r}: rename one")
    return dict(sorted(kinds.items()))


KINDS = _found()

if TYPE_CHECKING:
    FormatConfig = SequenceFormat
else:
    FormatConfig = Annotated[Union[tuple(KINDS.values())], Field(discriminator="kind")]  # noqa: UP007 - made of a list
