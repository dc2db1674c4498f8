"""What the configurations of all published formats share: `grammar.formats: {task: {kind: …}}` of a recipe.

Markers, chat roles and fixed words are data: the defaults spell them as the publication does, a recipe may change
them. A *pattern* (data/grammar/pattern.py) is a line with `[markers]`, `<markers>`, `{slots}`, fixed words and one `|`
before what is generated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import AfterValidator, Field

from data.errors import InputError
from data.frozen import Frozen

if TYPE_CHECKING:
    from data.grammar.base import Grammar
    from data.grammar.spelling import Speller

MARKER = re.compile(r"\[[^\[\]\s{}]+\]|<[^<>\s{}]+>")
SLOT = re.compile(r"\{([^{}]+)\}")
TEXT_SLOTS = ("text", "caption", "instruction")


def _ascending(words: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= words[0] <= words[1]:
        raise ValueError(f"{list(words)} are no bounds of a span: give the fewest and the most words, 1 or more")
    return words


Words = Annotated[tuple[int, int], AfterValidator(_ascending)]
Loss = Literal["all", "responses"]


class HasRate(Protocol):
    """What formats that cut by time need to know of a stream (data.store.StreamInfo has it)."""

    @property
    def frame_rate_hz(self) -> float: ...


class SequenceFormat(Frozen):
    """What all formats share. `PATTERNS` names the fields in which markers are spelt."""

    PATTERNS: ClassVar[tuple[str, ...]] = ()

    kind: str
    spelling: dict[str, str] = Field(
        {}, description="stream -> how `python -m data.grammar show` spells its codes, e.g. unit: '[Hu{}]'"
    )
    frame_rates_hz: dict[str, float] = Field(
        {}, description="stream -> codes per second, for formats that cut by time; default: what the store says"
    )

    def patterns(self) -> list[str]:
        """Everything in which the format spells markers and slots."""
        return [text for name in self.PATTERNS for text in _strings(getattr(self, name))]

    def markers(self) -> set[str]:
        """The markers, with brackets."""
        return {marker for text in self.patterns() for marker in MARKER.findall(text)}

    def streams(self) -> set[str]:
        """The streams that the format can show."""
        fields = (slot.rpartition(".")[2] for text in self.patterns() for slot in SLOT.findall(text))
        return {field for field in fields if field not in (*TEXT_SLOTS, "x")}

    def rates(self, task: str, streams: Mapping[str, HasRate]) -> dict[str, float]:
        """Frames per second by stream. Raises InputError where recipe and store do not agree."""
        known = {name: info.frame_rate_hz for name, info in streams.items()}
        for name, rate in self.frame_rates_hz.items():
            if known.get(name, rate) != rate:
                raise InputError(
                    f"grammar.formats.{task}.frame_rates_hz.{name} is {rate:g}, the store's stream has "
                    f"{known[name]:g}: leave it out"
                )
        return known | self.frame_rates_hz

    def build(self, speller: Speller, rates: Mapping[str, float]) -> Grammar:
        """The grammar of the task that `speller` spells; `rates` are the streams' frames per second.

        Raises InputError where the vocabulary or the rates lack what the format needs.
        """
        raise NotImplementedError


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Frozen):
        yield from _strings([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, Mapping):
        yield from _strings(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


class Instructed(SequenceFormat):
    """Formats whose first words are drawn from a set of instructions."""

    instructions: dict[str, tuple[str, ...]] = Field(
        {}, description="asr, tts, music_caption or text_to_music -> descriptions in place of the built-in ones"
    )
    prefix: str = Field("", description="a system prompt before the first turn; never trained on")
    loss: Loss = Field("all", description="all: everything but the prefix (the papers); responses: what is answered")
    deduplicate: bool = True
