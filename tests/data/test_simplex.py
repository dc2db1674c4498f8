"""Points for the mixture search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.simplex import simplex_points


@given(points=st.integers(1, 40), parts=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_weights_sum_to_one_above_the_floor_and_start_uniform(points, parts, seed):
    weights = simplex_points(points, parts, seed)
    assert weights.shape == (points, parts)
    assert np.allclose(weights.sum(1), 1)
    assert weights.min() >= 0.05 - 1e-12
    assert np.allclose(weights[0], 1 / parts)


def test_points_spread_over_the_simplex_and_follow_the_seed():
    weights = simplex_points(64, 4, seed=1)
    assert np.all(weights[1:].max(0) > 0.5)
    assert len(np.unique(weights.round(6), axis=0)) == 64
    assert np.array_equal(weights, simplex_points(64, 4, seed=1))
    assert not np.array_equal(weights, simplex_points(64, 4, seed=2))


def test_an_impossible_floor_is_refused():
    with pytest.raises(ValueError, match=r"floor=0\.3"):
        simplex_points(4, 4, seed=0, floor=0.3)
