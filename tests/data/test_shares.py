"""Shares of tokens and of samples, at fixed weights, under a schedule, and when a source ends."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.config import PhaseMixture
from data.errors import InputError
from data.shares import (
    BLOCK_SAMPLES,
    EarliestDeadline,
    LargestDeficit,
    SampleBlocks,
    ShareSchedule,
    picker_for,
    source_weights,
)

SHARES = st.lists(st.floats(0.001, 1), min_size=1, max_size=8)
GROUPS = {"a": ("a",), "b": ("b",), "c": ("c1", "c2")}


def normalised(shares: list[float]) -> dict[str, float]:
    return {str(index): share / sum(shares) for index, share in enumerate(shares)}


def mixture(**changes) -> PhaseMixture:
    return PhaseMixture(**{"name": "p", "weights": {"a": 0.5, "b": 0.5}, **changes})


def test_a_groups_weight_is_split_equally_over_its_tasks() -> None:
    groups = {"asr": ["asr"], "lm": ["unit_lm", "text_lm"], "chain": ["asr", "s2s"], "unused": ["x"]}
    weights = source_weights(groups, {"asr": 0.4, "lm": 0.4, "chain": 0.2, "unused": 0.0})
    assert weights == pytest.approx({"asr": 0.5, "unit_lm": 0.2, "text_lm": 0.2, "s2s": 0.1})


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(InputError, match="music"):
        source_weights({"asr": ["asr"]}, {"music": 1.0})


def test_temperature_takes_a_root_of_the_weights() -> None:
    weights = {"a": 0.64, "b": 0.16, "c": 0.2}
    assert source_weights(GROUPS, weights, 1.0) == source_weights(GROUPS, weights)
    roots = {"a": 0.8, "b": 0.4, "c1": 0.2**0.5 / 2, "c2": 0.2**0.5 / 2}
    total = sum(roots.values())
    expected = {task: root / total for task, root in roots.items()}
    assert source_weights(GROUPS, weights, 2.0) == pytest.approx(expected)
    many = {str(index): 1 / 4096 for index in range(4096)}
    sharpest = source_weights({name: (name,) for name in many}, many, 0.01)
    assert sharpest == pytest.approx(many)  # (1/4096)^100 is no number above 0
    even = source_weights({"a": ("a",), "b": ("b",)}, {"a": 0.9, "b": 0.1}, 1e6)
    assert even == pytest.approx({"a": 0.5, "b": 0.5}, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(SHARES, st.lists(st.integers(1, 400), min_size=300, max_size=300))
def test_the_largest_deficit_is_ahead_by_one_document_and_behind_by_less_than_two(
    shares: list[float], lengths: list[int]
) -> None:
    weights = normalised(shares)
    picker, longest = LargestDeficit(weights), 1
    for num_tokens in lengths:
        picker.add(picker.pick(), num_tokens)
        longest, total = max(longest, num_tokens), sum(picker.tokens.values())
        for source, weight in weights.items():
            assert -2 * longest - 1 < picker.tokens[source] - weight * total <= longest + 1


@settings(max_examples=50, deadline=None)
@given(SHARES, st.lists(st.sampled_from([1, 7, 100, 100]), min_size=300, max_size=300))
def test_the_earliest_deadline_is_within_one_document_of_every_share_at_any_time(
    shares: list[float], lengths: list[int]
) -> None:
    weights = normalised(shares)
    picker = EarliestDeadline(weights)
    longest = 1
    for num_tokens in lengths:
        picker.add(picker.pick(), num_tokens)
        longest = max(longest, num_tokens)
        total = sum(picker.tokens.values())
        for source, weight in weights.items():
            assert abs(picker.tokens[source] - weight * total) <= longest + 1


def test_many_small_shares_that_fall_due_together_do_not_wait_for_each_other() -> None:
    weights = normalised([97.6, 2.4, 2.4, 2.4, 2.4])

    def worst(picker: LargestDeficit) -> float:
        found = 0.0
        for _ in range(2000):
            picker.add(picker.pick(), 100)
            total = sum(picker.tokens.values())
            found = max([found, *(weights[source] * total - picker.tokens[source] for source in weights)])
        return found

    assert worst(LargestDeficit(weights)) > 140  # why there are two ways to pick
    assert worst(EarliestDeadline(weights)) <= 101


@settings(max_examples=25, deadline=None)
@given(SHARES)
def test_samples_are_exact_in_every_block_and_rounding_costs_nobody_in_the_long_run(shares: list[float]) -> None:
    weights = normalised(shares)
    picker = SampleBlocks(weights)
    total: Counter[str] = Counter()
    for number in range(1, 6):
        block: Counter[str] = Counter()
        for _ in range(BLOCK_SAMPLES):
            source = picker.pick()
            picker.add(source, 1)
            block[source] += 1
        total += block
        for source, weight in weights.items():
            assert abs(block[source] - weight * BLOCK_SAMPLES) < 1  # its share, rounded down or up
            assert abs(total[source] - weight * BLOCK_SAMPLES * number) < 2
        if number == 1:  # largest remainder: who was rounded up had a larger rest than who was rounded down
            rests = {source: weight * BLOCK_SAMPLES % 1 for source, weight in weights.items()}
            ups = [rests[s] for s, w in weights.items() if block[s] > w * BLOCK_SAMPLES + 1e-9]
            downs = [rests[s] for s, w in weights.items() if block[s] < w * BLOCK_SAMPLES - 1e-9]
            assert not ups or not downs or min(ups) >= max(downs) - 1e-9


def test_a_third_each_is_dealt_out_fairly_over_three_blocks() -> None:
    picker = SampleBlocks(normalised([1, 1, 1]))
    drawn: Counter[str] = Counter()
    for _ in range(3 * BLOCK_SAMPLES):
        source = picker.pick()
        picker.add(source, 1)
        drawn[source] += 1
    assert set(drawn.values()) == {BLOCK_SAMPLES}


def test_samples_are_spread_over_their_block() -> None:
    picker = SampleBlocks({"a": 0.5, "b": 0.3, "c": 0.2})
    drawn = []
    for _ in range(100):
        drawn.append(picker.pick())
        picker.add(drawn[-1], 1)
    assert all(Counter(drawn[start : start + 10]) == {"a": 5, "b": 3, "c": 2} for start in range(0, 100, 10))


def test_a_schedule_goes_in_straight_lines_from_weights_through_its_points() -> None:
    points = [{"step": 10, "weights": {"a": 0.5, "b": 0.5}}, {"step": 20, "weights": {"b": 0.2, "c": 0.8}}]
    schedule = ShareSchedule(GROUPS, mixture(weights={"a": 1.0}, weight_schedule=points))
    assert schedule.changes
    assert schedule.sources == ("a", "b", "c1", "c2")
    assert schedule.at(0) == {"a": 1.0, "b": 0.0, "c1": 0.0, "c2": 0.0}
    assert schedule.at(5) == pytest.approx({"a": 0.75, "b": 0.25, "c1": 0, "c2": 0})
    assert schedule.at(10) == {"a": 0.5, "b": 0.5, "c1": 0.0, "c2": 0.0}
    assert schedule.at(15) == pytest.approx({"a": 0.25, "b": 0.35, "c1": 0.2, "c2": 0.2})
    assert schedule.at(20) == schedule.at(999) == pytest.approx({"a": 0, "b": 0.2, "c1": 0.4, "c2": 0.4})
    assert schedule.mean(11)["a"] == pytest.approx(0.75)
    assert not ShareSchedule(GROUPS, mixture()).changes


@pytest.mark.parametrize("picks", ["largest_deficit", "earliest_deadline"])
def test_under_a_schedule_the_error_never_accumulates(picks: str) -> None:
    points = [{"step": step, "weights": {"a": share, "b": 1 - share}} for step, share in ((30, 0.1), (60, 0.9))]
    phase = mixture(weights={"a": 0.9, "b": 0.1}, weight_schedule=points, picks=picks)
    schedule = ShareSchedule(GROUPS, phase)
    picker = picker_for(phase, schedule.at(0))
    asked: Counter[str] = Counter()
    for step in range(90):
        shares = schedule.at(step)
        picker.reweigh(shares)
        for number in range(20):
            num_tokens = 20 + (step * 7 + number * 13) % 81
            picker.add(picker.pick(), num_tokens)
            asked.update({source: share * num_tokens for source, share in shares.items()})
            assert all(abs(picker.tokens[source] - asked[source]) <= 101 for source in shares)


def test_what_a_source_that_ends_was_owed_goes_to_the_others() -> None:
    picker = LargestDeficit({"a": 0.5, "b": 0.3, "c": 0.2})
    for _ in range(50):
        picker.add(picker.pick(), 10)
    before = dict(picker.tokens)
    picker.reweigh({"b": 0.6, "c": 0.4})
    for _ in range(100):
        picker.add(picker.pick(), 10)
    gained = {source: picker.tokens[source] - before[source] for source in ("b", "c")}
    assert gained == {"b": 600, "c": 400}
    assert picker.tokens["a"] == before["a"]


@pytest.mark.parametrize("kind", [LargestDeficit, EarliestDeadline])
def test_sources_that_come_back_after_a_time_without_any_share_begin_even(kind: type[LargestDeficit]) -> None:
    picker = kind({"a": 0.5, "b": 0.4, "c": 0.1})
    for _ in range(50):
        picker.add(picker.pick(), 10)
    before = dict(picker.tokens)
    picker.reweigh({})
    picker.reweigh({"b": 0.5, "c": 0.5})
    for _ in range(20):
        picker.add(picker.pick(), 10)
    assert {source: picker.tokens[source] - before[source] for source in ("b", "c")} == {"b": 100, "c": 100}


@pytest.mark.parametrize("field", ["max_epochs", "loss_weights"])
def test_a_task_of_no_group_is_an_input_error(field: str) -> None:
    with pytest.raises(InputError, match=rf"{field} of phase 'p' names \['c'\].*'c1', 'c2'"):
        ShareSchedule(GROUPS, mixture(**{field: {"a": 1.0, "c": 1.0}}))


@pytest.mark.parametrize("changes", [{}, {"picks": "largest_deficit"}, {"unit": "samples"}])
def test_a_picker_goes_on_from_its_state(changes: dict[str, str]) -> None:
    phase = mixture(weights={"a": 0.55, "b": 0.25, "c": 0.2}, **changes)
    shares = ShareSchedule(GROUPS, phase).at(0)
    picker, other = picker_for(phase, shares), picker_for(phase, shares)
    for number in range(333):
        picker.add(picker.pick(), 5 + number % 17)
    other.restore(json.loads(json.dumps(picker.state(), sort_keys=True)))
    for number in range(2000):
        assert other.pick() == picker.pick()
        for each in (picker, other):
            each.add(picker.pick() if each is picker else other.pick(), 5 + number % 13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"a": 0.7, "b": 0.7}}, "sum to 1.4"),
        ({"weight_schedule": [{"step": 5, "weights": {"a": 0.2}}]}, "sum to 0.2"),
        ({"weight_schedule": [{"step": s, "weights": {"a": 1.0}} for s in (5, 5)]}, "ascending"),
        ({"unit": "samples", "picks": "largest_deficit"}, "picks is for shares of tokens"),
        ({"max_epochs": {"a": 0}}, "above 0"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": 1e-5}, "temperature"),
        ({"weights": {"a": float("nan")}}, "sum to nan"),
        ({"max_epochs": {"a": float("inf")}}, "leave the task out"),
        ({"loss_weights": {"a": -1.0}}, "from 0 on"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        mixture(**changes)
