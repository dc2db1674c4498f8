"""What a grammar is: the one place that knows how a record becomes a sequence of ids, and back.

Shapes: T = tokens of one sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from data.grammar.continuation import Continuation


class RecordLike(Protocol):
    """The part of data.store.Record that grammars read."""

    @property
    def text(self) -> str | None: ...
    @property
    def speaker(self) -> str | None: ...
    @property
    def caption(self) -> str | None: ...
    @property
    def streams(self) -> Mapping[str, np.ndarray]: ...
    @property
    def response(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a rendered sequence.

    `kind` is "text", "caption", "voice" or a stream's name; `content` the text, the voice's name, or the codes (flat,
    frame-major); ids[start:end] spell it; `slot` is the template's name for it ("response.text" is of kind "text").
    """

    kind: str
    content: str | tuple[int, ...]
    start: int
    end: int
    slot: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A record as a sequence: ids_T int32, loss_mask_T bool (True where the token is a target), its segments."""

    ids: np.ndarray
    loss_mask: np.ndarray
    segments: list[Segment]


class Grammar(Protocol):
    """How records become sequences. `parse(render(x, rng).ids) == render(x, rng).segments` for every x it accepts."""

    @property
    def name(self) -> str:
        """The task's name."""

    @property
    def pad_id(self) -> int:
        """The id that fills rows up."""

    @property
    def draws(self) -> bool:
        """Whether `render` and `measure` use their rng; if not, a record's length never changes."""

    @property
    def croppable(self) -> bool:
        """Whether a record may be cut to a span of its words before rendering."""

    @property
    def splittable(self) -> bool:
        """Whether a part of a sequence stands for itself: nothing of the record is shown as a prompt to the rest."""

    @property
    def continuation(self) -> Continuation:
        """What is generated after the prompt, and which ids are legal at each step."""

    def accepts(self, record: RecordLike) -> bool:
        """Whether the record has everything that the sequence shows."""

    def render(self, record: RecordLike, rng: np.random.Generator | None = None) -> Rendered:
        """The sequence of a record that `accepts` is true of."""

    def tokens(self, record: RecordLike, rng: np.random.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
        """ids_T and loss_mask_T of `render(record, rng)`, without its segments: what training needs, faster."""

    def measure(self, record: RecordLike, rng: np.random.Generator | None = None) -> int:
        """Number of tokens of `render(record, rng)`, without rendering."""

    def dropped_codes(self, record: RecordLike) -> int:
        """Codes of the record that make no whole frame (several codebooks) and are not shown."""

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The segments of a sequence, whole or cut short."""

    def prompt(self, record: RecordLike) -> np.ndarray:
        """What a model is given at inference, int32; slots that the record lacks are left empty."""
