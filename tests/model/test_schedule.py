"""Phases and learning rates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from model.schedule import learning_rate, plan_phases, replace_weights, split_steps
from model.train_config import PhaseConfig, TrainConfig


def _phase(name: str, fraction: float, **fields: object) -> PhaseConfig:
    return PhaseConfig.model_validate(
        {"name": name, "steps_fraction": fraction, "weights": {"asr": 0.5, "tts": 0.3, "text": 0.2}, **fields}
    )


def _train(steps: int) -> TrainConfig:
    phases = (_phase("adaptation", 0.06), _phase("cross_modal", 0.8, mixture_target=True), _phase("chain", 0.14))
    return TrainConfig(steps=steps, phases=phases)


@given(total=st.integers(1, 5000), shares=st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_split_steps_sum_to_the_total_and_miss_no_share_by_a_whole_step(total: int, shares: list[int]) -> None:
    fractions = [share / sum(shares) for share in shares]
    counts = split_steps(total, fractions)
    assert sum(counts) == total
    assert all(abs(count - total * fraction) < 1 + 1e-6 for count, fraction in zip(counts, fractions, strict=True))


def test_steps_count_on_over_the_phases() -> None:
    plans = plan_phases(_train(1600))
    assert [(plan.first_step, plan.last_step) for plan in plans] == [(0, 96), (96, 1376), (1376, 1600)]


def test_a_phase_alone_gets_all_steps_and_keeps_its_place() -> None:
    (plan,) = plan_phases(_train(100), "chain")
    assert (plan.index, plan.first_step, plan.steps) == (2, 0, 100)


def test_an_unknown_phase_and_one_without_steps_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'cross_modal'"):
        plan_phases(_train(100), "crossmodal")
    with pytest.raises(InputError, match="leaves no step"):
        plan_phases(_train(2))


@given(
    steps=st.integers(1, 400),
    warmup=st.integers(0, 100),
    decay=st.floats(0, 1),
    ratio=st.floats(0, 1),
)
def test_the_learning_rate_rises_stays_and_falls_within_its_bounds(
    steps: int, warmup: int, decay: float, ratio: float
) -> None:
    phase = _phase("x", 1.0, lr=1e-2, warmup_steps=warmup, decay_fraction=decay, min_lr_ratio=ratio)
    rates = [learning_rate(phase, steps, step) for step in range(steps)]
    assert all(0 <= rate <= 1e-2 * (1 + 1e-9) for rate in rates)
    rising = min(warmup, steps // 2)
    assert rates[:rising] == sorted(rates[:rising])
    assert rates[rising:] == sorted(rates[rising:], reverse=True)
    if decay * steps >= 1:
        assert rates[-1] == pytest.approx(1e-2 * ratio)


def test_a_mixture_keeps_the_share_of_the_groups_that_it_names() -> None:
    phases = _train(100).phases
    _, target, last = replace_weights(phases, {"asr": 1.0, "tts": 3.0})
    assert target.weights == pytest.approx({"asr": 0.2, "tts": 0.6, "text": 0.2})
    assert last == phases[2]


def test_a_mixture_that_does_not_fit_is_refused() -> None:
    phases = _train(100).phases
    with pytest.raises(InputError, match="did you mean 'text'"):
        replace_weights(phases, {"txt": 1.0})
    with pytest.raises(InputError, match="non-negative"):
        replace_weights(phases, {"asr": -1.0, "tts": 2.0})
    with pytest.raises(InputError, match="mixture_target"):
        replace_weights(phases[:1], {"asr": 1.0})


def _curve(steps: int = 100, **fields: object) -> list[float]:
    return [learning_rate(_phase("x", 1.0, lr=1.0, **fields), steps, step) for step in range(steps)]


def test_each_schedule_has_its_shape_after_the_same_warm_up() -> None:
    wsd, cosine, linear, constant = (
        _curve(schedule=name, warmup_steps=10, decay_fraction=0.2, min_lr_ratio=0.1)
        for name in ("wsd", "cosine", "linear", "constant")
    )
    for curve in (wsd, cosine, linear, constant):
        assert curve[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert wsd[10:80] == [1.0] * 70
    assert constant[10:] == [1.0] * 90
    assert (wsd[-1], cosine[-1], linear[-1]) == pytest.approx((0.1, 0.1, 0.1))
    assert (linear[54], cosine[54]) == pytest.approx((0.55, 0.55))  # half of the 90 steps are left
    assert cosine[20] > linear[20]
    assert cosine[90] < linear[90]
    assert linear == sorted(linear[:10]) + sorted(linear[10:], reverse=True)


def test_a_warm_up_as_a_share_follows_the_phase() -> None:
    assert _curve(200, warmup_ratio=0.05) == _curve(200, warmup_steps=10)
