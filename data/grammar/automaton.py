"""Continuations with a choice: alternatives that may begin alike, and spans that come again and again.

Several ways on are followed at once (the subset construction), so that decoding still sees one state.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from data.grammar.continuation import Continuation, Edge, Step, line_automaton
from data.vocabulary import Block

Edges = list[list[Edge]]


def continuation_of(alternatives: Sequence[tuple[Step, ...]], padded_size: int) -> Continuation:
    """A continuation that is any one of `alternatives`; one alone gives a plain Continuation."""
    if len(alternatives) == 1:
        return Continuation(alternatives[0], padded_size)
    edges: Edges = []
    slots: list[str | None] = []
    starts, ends = [], []
    for steps in alternatives:
        first = len(edges)
        line, line_slots = line_automaton(steps)
        edges += [[Edge(edge.block, edge.target + first) for edge in state] for state in line]
        slots += line_slots
        starts.append(first)
        ends.append(len(edges) - 1)
    steps = tuple(dict.fromkeys(step for steps in alternatives for step in steps))
    return Continuation(steps, padded_size, determinise(edges, slots, starts, ends))


def determinise(
    edges: Edges, slots: Sequence[str | None], starts: Sequence[int], ends: Sequence[int]
) -> tuple[Edges, list[str | None]]:
    """One state for every set of states that can be reached together; the last one accepts nothing more.

    Where one way has ended the others are over, too.
    """
    finished = frozenset(ends)
    names = {frozenset(starts): 0}
    waiting = [frozenset(starts)]
    found: Edges = []
    for members in waiting:
        ways: list[Edge] = []
        for block, targets in _ranges([edge for state in sorted(members) for edge in edges[state]]):
            target = finished if targets & finished else targets
            if target != finished and target not in names:
                names[target] = len(names)
                waiting.append(target)
            ways.append(Edge(block, -1 if target == finished else names[target]))
        found.append(ways)
    last = len(found)
    joined = [[Edge(edge.block, last if edge.target < 0 else edge.target) for edge in ways] for ways in found]
    named = [next((slots[state] for state in sorted(members) if slots[state]), None) for members in waiting]
    return [*joined, []], [*named, None]


def _ranges(edges: Sequence[Edge]) -> list[tuple[Block, frozenset[int]]]:
    """Ranges of ids that do not overlap, each with all the states it leads to."""
    bounds = sorted({bound for edge in edges for bound in (edge.block.start, edge.block.stop)})
    ranges = []
    for start, stop in itertools.pairwise(bounds):
        inside = [edge for edge in edges if edge.block.start <= start and stop <= edge.block.stop]
        if inside:
            name = inside[0].block.name
            ranges.append((Block(name, start, stop - start), frozenset(edge.target for edge in inside)))
    return ranges
