import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.layouts import delay, frame_major, from_delay, from_frame_major

PAD = 2048
codes = st.tuples(st.integers(0, 30), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.int16, shape, elements=st.integers(0, PAD - 1))
)


@given(codes)
def test_frame_major_is_undone_exactly(codes_TK: np.ndarray) -> None:
    restored, dropped = from_frame_major(frame_major(codes_TK), codes_TK.shape[1])
    assert dropped == 0
    np.testing.assert_array_equal(restored, codes_TK)
    assert restored.dtype == codes_TK.dtype


def test_frame_major_puts_all_codebooks_of_a_frame_side_by_side() -> None:
    assert frame_major(np.array([[1, 2, 3], [4, 5, 6]])).tolist() == [1, 2, 3, 4, 5, 6]


@given(codes, st.integers(0, 200))
def test_a_cut_frame_major_sequence_keeps_its_whole_frames_and_counts_the_rest(codes_TK: np.ndarray, cut: int) -> None:
    sequence = frame_major(codes_TK)[: max(0, codes_TK.size - cut)]
    restored, dropped = from_frame_major(sequence, codes_TK.shape[1])
    assert restored.size + dropped == sequence.size
    assert dropped < codes_TK.shape[1]
    np.testing.assert_array_equal(restored, codes_TK[: len(restored)])


def test_delay_shifts_codebook_k_by_k_steps() -> None:
    delayed_SK = delay(np.array([[1, 2, 3], [4, 5, 6]]), 9)
    assert delayed_SK.tolist() == [[1, 9, 9], [4, 2, 9], [9, 5, 3], [9, 9, 6]]


@given(codes)
def test_delay_is_undone_exactly(codes_TK: np.ndarray) -> None:
    restored, dropped = from_delay(delay(codes_TK, PAD), PAD)
    assert dropped == 0
    np.testing.assert_array_equal(restored, codes_TK)
    assert restored.dtype == codes_TK.dtype


@given(codes, st.integers(0, 40))
def test_a_cut_delay_pattern_keeps_its_whole_frames_and_counts_the_rest(codes_TK: np.ndarray, cut: int) -> None:
    delayed_SK = delay(codes_TK, PAD)
    kept_SK = delayed_SK[: max(0, len(delayed_SK) - cut)]
    restored, dropped = from_delay(kept_SK, PAD)
    np.testing.assert_array_equal(restored, codes_TK[: len(restored)])
    assert len(restored) == max(0, len(codes_TK) - cut)
    assert restored.size + dropped == int((kept_SK != PAD).sum())


@given(codes.filter(lambda codes_TK: codes_TK.size > 0), st.data())
def test_a_missing_code_ends_the_frames_before_it(codes_TK: np.ndarray, data: st.DataObject) -> None:
    frame = data.draw(st.integers(0, len(codes_TK) - 1))
    codebook = data.draw(st.integers(0, codes_TK.shape[1] - 1))
    delayed_SK = delay(codes_TK, PAD)
    delayed_SK[frame + codebook, codebook] = PAD
    restored, dropped = from_delay(delayed_SK, PAD)
    np.testing.assert_array_equal(restored, codes_TK[:frame])
    assert dropped == codes_TK.size - 1 - restored.size


def test_a_pad_code_that_is_also_a_code_is_refused() -> None:
    with pytest.raises(ValueError, match="pad_code 3"):
        delay(np.array([[1, 3]]), 3)
