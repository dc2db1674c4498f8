import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.statistics import bootstrap_interval, ratio


def test_ratio_is_the_corpus_rate_and_not_the_mean_of_rates():
    assert ratio([1, 0], [1, 9]) == pytest.approx(0.1)


def test_nothing_scored_is_zero_without_an_interval():
    assert ratio([], []) == 0.0
    assert bootstrap_interval([], [], name="line", seed=1) is None
    assert bootstrap_interval([1.0], [3.0], name="line", seed=1) is None


def test_interval_repeats_for_one_seed_and_differs_for_another():
    rng = np.random.default_rng(0)
    errors, words = rng.integers(0, 3, 50).tolist(), [7] * 50
    first = bootstrap_interval(errors, words, name="line", seed=1)
    assert first == bootstrap_interval(errors, words, name="line", seed=1)
    assert first != bootstrap_interval(errors, words, name="line", seed=2)


def test_interval_of_a_mean_agrees_with_the_normal_one():
    scores = np.random.default_rng(3).normal(0.5, 0.1, 400)
    low, high = bootstrap_interval(scores.tolist(), [1.0] * 400, name="line", seed=1, resamples=4000)
    half = 1.96 * scores.std(ddof=1) / 20
    assert low == pytest.approx(scores.mean() - half, abs=0.002)
    assert high == pytest.approx(scores.mean() + half, abs=0.002)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=2, max_size=30))
def test_interval_is_ordered_and_within_the_extremes_of_single_utterances(pairs):
    errors, words = [a for a, _ in pairs], [b for _, b in pairs]
    low, high = bootstrap_interval(errors, words, name="line", seed=1, resamples=100)
    rates = [a / b for a, b in pairs]
    assert min(rates) - 1e-9 <= low <= high <= max(rates) + 1e-9
