"""How the steps of a run are split over its phases, and the learning rate of each step: pure functions."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.errors import InputError
from model.train_config import PhaseConfig, TrainConfig


@dataclass(frozen=True)
class PhasePlan:
    """A phase placed in a run: it does steps `first_step` + 1 … `last_step` of the run's count.

    `index` is the phase's place in the recipe, also when it runs alone.
    """

    config: PhaseConfig
    index: int
    first_step: int
    steps: int

    @property
    def last_step(self) -> int:
        """The run's step count when the phase has ended."""
        return self.first_step + self.steps


def plan_phases(train: TrainConfig, only: str | None = None) -> tuple[PhasePlan, ...]:
    """The phases of a run with their steps; with `only`, that phase alone, which then gets all of `train.steps`.

    Raises InputError for an unknown phase, or when a phase would get no step.
    """
    if only is not None:
        index = phase_index(train.phases, only)
        return (PhasePlan(train.phases[index], index, 0, train.steps),)
    counts = split_steps(train.steps, [phase.steps_fraction for phase in train.phases])
    plans: list[PhasePlan] = []
    for index, (phase, steps) in enumerate(zip(train.phases, counts, strict=True)):
        if steps < 1:
            raise InputError(
                f"train.steps={train.steps} leaves no step for phase {phase.name!r} "
                f"(steps_fraction {phase.steps_fraction:g}): raise train.steps or remove the phase"
            )
        plans.append(PhasePlan(phase, index, plans[-1].last_step if plans else 0, steps))
    return tuple(plans)


def phase_index(phases: Sequence[PhaseConfig], name: str) -> int:
    """Place of the phase called `name`. Raises InputError, with the closest name, when there is none."""
    names = [phase.name for phase in phases]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the recipe has {names}"
        raise InputError(f"phase={name!r} is no phase of the recipe: {hint}")
    return names.index(name)


def split_steps(total: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers in the proportions of `fractions` that sum to `total` (largest remainders)."""
    exact = [total * fraction for fraction in fractions]
    counts = [int(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: (counts[index] - exact[index], index))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def learning_rate(phase: PhaseConfig, steps: int, step: int) -> float:
    """Learning rate of step `step` (0-based) of a phase of `steps` steps.

    Linear warm-up over `warmup_steps` (or `warmup_ratio` of the phase), at most half of a short phase. Then by
    `schedule`, down to `min_lr_ratio` of the peak at the last step: `wsd` (Hu et al. 2024) constant until the last
    `decay_fraction` of the phase, which is linear; `linear` and `cosine` (Loshchilov & Hutter 2017) over all that
    follows the warm-up; `constant` stays at the peak.
    """
    wanted = phase.warmup_steps if phase.warmup_ratio is None else round(phase.warmup_ratio * steps)
    warmup = min(wanted, steps // 2)
    if step < warmup:
        return phase.lr * (step + 1) / warmup
    decay_steps = phase.decay_fraction * steps if phase.schedule == "wsd" else steps - warmup
    left: float = steps - step - 1
    if phase.schedule == "constant" or decay_steps < 1 or left >= decay_steps:
        return phase.lr
    if phase.schedule == "cosine":
        left = (1 - math.cos(math.pi * left / decay_steps)) / 2 * decay_steps
    return phase.lr * (phase.min_lr_ratio + (1 - phase.min_lr_ratio) * left / decay_steps)


def replace_weights(
    phases: Sequence[PhaseConfig], weights: Mapping[str, float], only: str | None = None
) -> tuple[PhaseConfig, ...]:
    """Phases whose mixture target has the given weights for the groups that they name.

    The named groups keep the total share that they had together; the target's other groups keep theirs.
    Raises InputError when no phase to be run is a mixture target, or a group is unknown to it.
    """
    targets = [phase.name for phase in phases if phase.mixture_target and only in (None, phase.name)]
    if not targets:
        raise InputError("mixture= needs a phase with mixture_target: true among the phases to run: set it on one")
    return tuple(_reweigh(phase, weights) if phase.name in targets else phase for phase in phases)


def _reweigh(phase: PhaseConfig, weights: Mapping[str, float]) -> PhaseConfig:
    unknown = sorted(set(weights) - set(phase.weights))
    if unknown:
        close = difflib.get_close_matches(unknown[0], phase.weights, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {sorted(phase.weights)}"
        raise InputError(f"the mixture names group {unknown[0]!r}, which phase {phase.name!r} lacks: {hint}")
    total = sum(weights.values())
    if total <= 0 or any(weight < 0 for weight in weights.values()):
        raise InputError(f"mixture weights {dict(weights)} must be non-negative and not all zero")
    share = sum(phase.weights[group] for group in weights)
    replaced = {group: share * weight / total for group, weight in weights.items()}
    return phase.model_copy(update={"weights": {**phase.weights, **replaced}})
