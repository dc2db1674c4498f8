"""Deduplication loses nothing: codes and durations give the frames back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.durations import MAX_DURATION_FRAMES, deduplicate, expand

CODES = st.lists(st.integers(0, 3), max_size=60).map(lambda codes: np.array(codes, np.int16))


@given(CODES)
def test_expanding_a_deduplicated_sequence_gives_it_back(codes_T):
    codes_L, durations_L = deduplicate(codes_T)
    assert codes_L.dtype == durations_L.dtype == np.int16
    assert np.array_equal(expand(codes_L, durations_L), codes_T)


@given(CODES)
def test_no_two_neighbours_are_equal_and_every_code_lasts(codes_T):
    codes_L, durations_L = deduplicate(codes_T)
    assert (codes_L[1:] != codes_L[:-1]).all()
    assert (durations_L > 0).all()


def test_a_sequence_deduplicates_to_what_one_writes_by_hand():
    codes_L, durations_L = deduplicate(np.array([13, 13, 3, 3, 3, 13]))
    assert codes_L.tolist() == [13, 3, 13]
    assert durations_L.tolist() == [2, 3, 1]


@pytest.mark.parametrize("frames", [MAX_DURATION_FRAMES, MAX_DURATION_FRAMES + 1, 2 * MAX_DURATION_FRAMES])
def test_a_run_that_int16_cannot_count_is_split(frames):
    codes_T = np.append(np.full(frames, 5, np.int16), np.int16(6))
    codes_L, durations_L = deduplicate(codes_T)
    assert codes_L.tolist() == [5] * -(-frames // MAX_DURATION_FRAMES) + [6]
    assert np.array_equal(expand(codes_L, durations_L), codes_T)


def test_codes_without_a_duration_each_are_an_error():
    with pytest.raises(ValueError, match="3 codes have 2 durations"):
        expand(np.array([1, 2, 3]), np.array([1, 1]))
