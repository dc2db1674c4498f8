"""Whose turn it is: sources are drawn so that each keeps its share, of the tokens or of the samples.

A source is one task over the records that its grammar accepts. Shares may change from step to step, and a source that
has nothing left leaves its share to the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data.config import PhaseMixture
from data.errors import InputError

BLOCK_SAMPLES = 1000  # samples over which shares of samples are exact


def source_weights(
    groups: Mapping[str, Sequence[str]], weights: Mapping[str, float], temperature: float = 1.0
) -> dict[str, float]:
    """Share of every task: a group's weight in equal parts over its tasks; zero shares are left out.

    A group's weight w counts as w^(1/temperature): 1 keeps the weights, above 1 evens them out, below 1 sharpens them.
    That is the rule of T5 (Raffel et al. 2020) and mT5 (Xue et al. 2021, alpha = 1/temperature), whose weights are
    the sizes of the data sets; give sizes over their sum to have it. A task in several groups gets the sum.
    Raises InputError for a weight whose group is unknown or empty.
    """
    shares: dict[str, float] = {}
    largest = 1.0 if temperature == 1 else max(weights.values(), default=1.0)  # its power never vanishes
    for group, weight in weights.items():
        if not groups.get(group):
            raise InputError(f"weights name group {group!r}, which grammar.groups lacks: choose from {sorted(groups)}")
        for task in groups[group]:
            shares[task] = shares.get(task, 0.0) + (weight / largest) ** (1 / temperature) / len(groups[group])
    total = sum(shares.values())
    return {task: share / total for task, share in shares.items() if share > 0}


class ShareSchedule:
    """The shares of a phase's sources at every step: `weights` at step 0, then straight lines through the points of
    `weight_schedule`, and the last point's for ever after.

    Raises InputError for a phase that names a group, or a task, which `groups` lack.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]], phase: PhaseMixture) -> None:
        tasks = {task for group in groups.values() for task in group}
        for name, named in (("max_epochs", phase.max_epochs), ("loss_weights", phase.loss_weights)):
            unknown = sorted(set(named) - tasks)
            if unknown:
                raise InputError(
                    f"{name} of phase {phase.name!r} names {unknown}: choose from the tasks of grammar.groups, "
                    f"{sorted(tasks)}"
                )
        points = [(0, phase.weights), *((point.step, point.weights) for point in phase.weight_schedule)]
        self._points = [(step, source_weights(groups, weights, phase.temperature)) for step, weights in points]
        self.sources = tuple(dict.fromkeys(source for _, shares in self._points for source in shares))

    @property
    def changes(self) -> bool:
        """Whether the shares are not the same at all steps."""
        return len(self._points) > 1

    def at(self, step: int) -> dict[str, float]:
        """The shares at a step of the phase, of every source of the phase."""
        before = max(index for index, (start, _) in enumerate(self._points) if start <= step)
        start, shares = self._points[before]
        if before + 1 == len(self._points):
            return {source: shares.get(source, 0.0) for source in self.sources}
        stop, later = self._points[before + 1]
        way = (step - start) / (stop - start)
        return {source: (1 - way) * shares.get(source, 0.0) + way * later.get(source, 0.0) for source in self.sources}

    def mean(self, num_steps: int) -> dict[str, float]:
        """The mean of the shares of the first steps: what was asked for over all of them."""
        if not self.changes:
            return self.at(0)
        every = [self.at(step) for step in range(num_steps)]
        return {source: sum(shares[source] for shares in every) / max(1, num_steps) for source in self.sources}


class LargestDeficit:
    """Picks the source that is furthest behind its share of the tokens.

    The error never accumulates: a source is ahead of its share by at most one document (of the longest length) at any
    time, and behind it by one or, where several sources of small shares fall due together, a little more: no search
    found two. EarliestDeadline keeps to one.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)
        self.tokens = dict.fromkeys(weights, 0)
        self._owed = dict.fromkeys(weights, 0.0)  # tokens that the shares before the present ones came to
        self._total = 0
        self._since = 0  # total at which the present shares began

    def pick(self) -> str:
        """The source to draw from next. Ties go to the larger share, then to the source named first."""
        total, owed, tokens = self._total - self._since + 1, self._owed, self.tokens
        return max(self.weights, key=lambda source: owed[source] + self.weights[source] * total - tokens[source])

    def add(self, source: str, num_tokens: int) -> None:
        """Account for a document drawn."""
        self.tokens[source] += num_tokens
        self._total += num_tokens

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Go on with other shares. A source that is no longer named has left: what it was owed goes to the others."""
        for source, weight in self.weights.items():
            self._owed[source] += weight * (self._total - self._since)
        self._since = self._total
        gone = sum(self._owed.pop(name) - self.tokens[name] for name in [*self._owed] if name not in weights)
        self.weights = dict(weights)
        for source, weight in self.weights.items():
            owed = self._owed.get(source, float(self.tokens[source]))  # one that comes back is neither ahead nor behind
            self._owed[source] = owed + weight * gone

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {name: _copied(value) for name, value in vars(self).items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; for a picker fresh from the phase's sources, whose order decides ties."""
        vars(self).update(_in_order(state, list(self.weights)))


class EarliestDeadline(LargestDeficit):
    """Picks, of the sources that are behind, the one that would soonest be behind by the longest document seen.

    So every source stays within one document of its share at any time, both ways, at fixed shares (worst-case fair
    weighted queueing, Bennett and Zhang 1996, with documents as packets).
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__(weights)
        self._longest = 1

    def pick(self) -> str:
        """The source to draw from next."""
        total = self._total - self._since + 1
        best, soonest = "", float("inf")
        for source, weight in self.weights.items():
            deficit = self._owed[source] + weight * total - self.tokens[source]
            if deficit > 0 and weight > 0 and (self._longest - deficit) / weight < soonest:
                best, soonest = source, (self._longest - deficit) / weight
        return best or super().pick()

    def add(self, source: str, num_tokens: int) -> None:
        """Account for a document drawn."""
        super().add(source, num_tokens)
        self._longest = max(self._longest, num_tokens)


class SampleBlocks:
    """Shares of the samples, exact in every block of BLOCK_SAMPLES draws: whole numbers by largest remainder.

    Each source gets its share of the block rounded down or up, all together the block. What rounding has cost a source
    so far counts at the next block, so that no source loses by it in the long run.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)
        self._carried = dict.fromkeys(weights, 0.0)
        self._left: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._drawn = 0

    def pick(self) -> str:
        """The source to draw from next: the one furthest behind its number in this block."""
        if not any(self._left.values()):
            self._begin_block()
        done = (self._drawn + 1) / sum(self._counts.values())
        open_sources = [source for source, left in self._left.items() if left]
        return max(open_sources, key=lambda name: self._counts[name] * done - self._counts[name] + self._left[name])

    def add(self, source: str, num_tokens: int) -> None:
        """Account for a sample drawn."""
        self._left[source] -= 1
        self._drawn += 1

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Other shares from the next block on; where a source has left, the block is dealt out anew at once."""
        if set(weights) != set(self.weights):
            self._left = {}
        self.weights = dict(weights)
        self._carried = {source: self._carried.get(source, 0.0) for source in weights}

    def _begin_block(self) -> None:
        exact = {source: weight * BLOCK_SAMPLES for source, weight in self.weights.items()}
        counts = {source: int(value + 1e-9) for source, value in exact.items()}
        rests = {source: self._carried[source] + exact[source] - counts[source] for source in exact}
        splittable = [source for source in exact if exact[source] - counts[source] > 1e-9]
        first = sorted(splittable, key=lambda source: -rests[source])[: BLOCK_SAMPLES - sum(counts.values())]
        self._counts = {source: count + (source in first) for source, count in counts.items()}
        self._carried = {source: rests[source] - (source in first) for source in exact}
        self._left, self._drawn = dict(self._counts), 0

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {name: _copied(value) for name, value in vars(self).items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; for a picker fresh from the phase's sources, whose order decides ties."""
        vars(self).update(_in_order(state, list(self.weights)))


Picker = LargestDeficit | SampleBlocks


def picker_for(phase: PhaseMixture, weights: Mapping[str, float]) -> Picker:
    """What picks the sources of a phase."""
    if phase.unit == "samples":
        return SampleBlocks(weights)
    return EarliestDeadline(weights) if phase.picks == "earliest_deadline" else LargestDeficit(weights)


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _in_order(state: Mapping[str, Any], sources: Sequence[str]) -> dict[str, Any]:
    return {
        name: {source: value[source] for source in sources if source in value} if isinstance(value, dict) else value
        for name, value in state.items()
    }
