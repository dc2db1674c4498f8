import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.timing import (
    frame_span,
    frames_to_seconds,
    round_half_up,
    samples_to_frames,
    samples_to_seconds,
    seconds_to_frames,
    seconds_to_samples,
)


@pytest.mark.parametrize(("value", "expected"), [(0.5, 1), (1.5, 2), (2.5, 3), (0.58 * 25, 15), (2.4, 2), (-0.2, 0)])
def test_halves_round_up_also_when_a_product_falls_a_hair_below(value: float, expected: int) -> None:
    assert round_half_up(value) == expected


@given(st.integers(0, 10**7), st.sampled_from([8000, 16000, 22050, 44100]))
def test_samples_survive_the_way_through_seconds(num_samples: int, sample_rate: int) -> None:
    assert seconds_to_samples(samples_to_seconds(num_samples, sample_rate), sample_rate) == num_samples


@given(st.integers(0, 10**6), st.sampled_from([12.5, 25.0, 50.0, 75.0]))
def test_frames_survive_the_way_through_seconds_and_samples(num_frames: int, frame_rate_hz: float) -> None:
    assert seconds_to_frames(frames_to_seconds(num_frames, frame_rate_hz), frame_rate_hz) == num_frames
    num_samples = seconds_to_samples(frames_to_seconds(num_frames, frame_rate_hz), 16000)
    assert samples_to_frames(num_samples, 16000, frame_rate_hz) == num_frames


def test_any_sound_has_a_frame_and_none_has_none() -> None:
    assert samples_to_frames(1, 16000, 25.0) == 1
    assert samples_to_frames(0, 16000, 25.0) == 0


@given(st.floats(0, 20), st.floats(0, 20), st.integers(1, 300))
def test_a_span_of_frames_lies_inside_the_clip_and_is_not_empty(first: float, second: float, num_frames: int) -> None:
    start, end = frame_span(min(first, second), max(first, second), 25.0, num_frames)
    assert 0 <= start < end <= num_frames


def test_neighbouring_spans_touch() -> None:
    assert frame_span(0.1, 0.42, 25.0, 50)[1] == frame_span(0.42, 0.9, 25.0, 50)[0]


def test_a_clip_without_frames_has_an_empty_span() -> None:
    assert frame_span(0.0, 1.0, 25.0, 0) == (0, 0)
