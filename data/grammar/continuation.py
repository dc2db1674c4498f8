"""Which ids may come next: the part of a template that is generated, as a small automaton.

Shapes: B = sequences, V = ids of the padded vocabulary, S = states.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.vocabulary import Block


@dataclass(frozen=True)
class Step:
    """One item to generate: a marker, a voice (one id of any of `blocks`) or an open slot (one or more frames).

    `slot` is the template's name of the slot, None for a marker. `blocks` of an open slot has one range of ids per
    codebook; it cycles through them and may end only between frames. It ends when the next step begins.
    """

    slot: str | None
    blocks: tuple[Block, ...]
    is_open: bool


@dataclass(frozen=True)
class Edge:
    """Any id of `block` leads to state `target`."""

    block: Block
    target: int


class Continuation:
    """The legal ids after a prompt. A state is a small integer; state 0 is the start, `end` accepts nothing more.

    Decoding keeps one state per sequence: `masks_SV[states_B]` are the legal ids, `advance` moves on.
    """

    def __init__(
        self,
        steps: tuple[Step, ...],
        padded_size: int,
        automaton: tuple[list[list[Edge]], list[str | None]] | None = None,
    ) -> None:
        """`automaton` replaces the plain sequence of steps (see data/grammar/automaton.py)."""
        self.steps = steps
        self._padded_size = padded_size
        self._edges, self._step_of_state = automaton or line_automaton(steps)
        self.end = len(self._edges) - 1

    @property
    def num_states(self) -> int:
        """Number of states, `end` among them."""
        return len(self._edges)

    @property
    def can_end(self) -> bool:
        """Whether anything leads to `end`: a format without an end marker goes on until a limit of tokens."""
        return any(edge.target == self.end for edges in self._edges for edge in edges)

    @cached_property
    def masks_SV(self) -> np.ndarray:
        """Legal ids in each state, bool. The row of `end` is all False: nothing follows."""
        masks_SV = np.zeros((self.num_states, self._padded_size), dtype=bool)
        for state, edges in enumerate(self._edges):
            for edge in edges:
                masks_SV[state, edge.block.start : edge.block.stop] = True
        return masks_SV

    @cached_property
    def _targets_SV(self) -> np.ndarray:
        targets_SV = np.full((self.num_states, self._padded_size), -1, dtype=np.int16)
        for state, edges in enumerate(self._edges):
            for edge in edges:
                targets_SV[state, edge.block.start : edge.block.stop] = edge.target
        return targets_SV

    def ranges(self, state: int) -> list[tuple[int, int]]:
        """Legal ids in a state as [start, stop) ranges."""
        return [(edge.block.start, edge.block.stop) for edge in self._edges[state]]

    def slot(self, state: int) -> str | None:
        """The open slot that `state` is inside of; None at markers, voices and the end."""
        return self._step_of_state[state]

    def only_choice(self, state: int) -> int | None:
        """The id that must come next, where there is just one (a marker): it needs no model."""
        edges = self._edges[state]
        return edges[0].block.start if len(edges) == 1 and edges[0].block.size == 1 else None

    def advance(self, states_B: np.ndarray | int, ids_B: np.ndarray | int) -> np.ndarray:
        """The states after one more id each, int16. Raises ValueError for an id that is not legal."""
        after_B = self._targets_SV[states_B, ids_B]
        if np.any(after_B < 0):
            raise ValueError(f"ids {ids_B} may not come in states {states_B} of this continuation")
        return np.asarray(after_B)

    def state_after(self, ids: Iterable[int]) -> int:
        """The state after the generated `ids`. Raises ValueError where one of them is not legal."""
        state = 0
        for token in ids:
            state = int(self.advance(state, int(token)))
        return state

    def allowed(self, ids: Iterable[int]) -> np.ndarray:
        """Mask over V of the ids that may follow the generated `ids`."""
        mask_V: np.ndarray = self.masks_SV[self.state_after(ids)]
        return mask_V


def line_automaton(steps: tuple[Step, ...]) -> tuple[list[list[Edge]], list[str | None]]:
    """Edges of every state, and the open slot that each state is inside of.

    State `first + k` expects codebook k of a step's first frame. An open step has one state more, between its frames,
    which offers another frame or whatever begins the next step.
    """
    edges: list[list[Edge]] = []
    slots: list[str | None] = []
    between: int | None = None
    for step in steps:
        first = len(edges)
        begins = [Edge(block, first + 1) for block in (step.blocks[:1] if step.is_open else step.blocks)]
        if between is not None:
            edges[between] += begins
            between = None
        if not step.is_open:
            edges.append([*begins])
            slots.append(None)
            continue
        edges += [[Edge(block, first + codebook + 1)] for codebook, block in enumerate(step.blocks)]
        slots += [step.slot] * len(step.blocks)
        between = len(edges)
        edges.append([*begins])
        slots.append(step.slot)
    return [*edges, []], [*slots, None]
