import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data.corpus.segmentation import cut, segments
from data.corpus.steps_config import VadSegmentation
from data.manifest import Utterance

RATE_HZ = 31.25


def config(**changes: float) -> VadSegmentation:
    return VadSegmentation(kind="vad", **changes)


def curve(*parts: tuple[float, float]) -> np.ndarray:
    """(seconds, probability) after one another."""
    return np.concatenate([np.full(round(seconds * RATE_HZ), value, np.float32) for seconds, value in parts])


def found(*parts: tuple[float, float], **changes: float) -> list[tuple[float, float]]:
    probability_W = curve(*parts)
    return segments(probability_W, RATE_HZ, len(probability_W) / RATE_HZ, config(**changes))


def test_short_pauses_are_joined_and_long_ones_dropped() -> None:
    spans = found((3.2, 0), (1.6, 0.9), (0.32, 0), (1.6, 0.9), (3.2, 0.1), (1.6, 0.9), (1.6, 0))
    np.testing.assert_allclose(spans, [(3.1, 6.82), (9.82, 11.62)], atol=1e-9)


def test_pads_stop_halfway_to_the_neighbour_and_at_the_ends() -> None:
    spans = found((1.6, 0.9), (0.64, 0), (1.6, 0.9), pad_s=2.0, join_pause_s=0.1)
    np.testing.assert_allclose(spans, [(0, 1.92), (1.92, 3.84)], atol=1e-9)


def test_clicks_and_silence_hold_no_speech() -> None:
    assert found((3.2, 0), (0.128, 0.99), (3.2, 0)) == []
    assert found((32, 0.2)) == []
    assert segments(np.zeros(0), RATE_HZ, 0.0, config()) == []


def test_speech_goes_on_a_little_below_the_threshold() -> None:
    assert len(found((1.6, 0.9), (0.64, 0.4), (1.6, 0.9), join_pause_s=0.0)) == 1
    assert len(found((1.6, 0.9), (0.64, 0.3), (1.6, 0.9), join_pause_s=0.0)) == 2


def test_endless_speech_is_cut_where_it_is_weakest() -> None:
    spans = found((8, 0.9), (0.032, 0.6), (6, 0.9), max_s=10, pad_s=0.0)
    np.testing.assert_allclose(spans, [(0, 8.0), (8.0, 14.048)], atol=0.02)


@given(
    st.lists(st.tuples(st.floats(0.04, 9), st.sampled_from([0.0, 0.2, 0.45, 0.7, 0.99])), max_size=12),
    st.floats(1.5, 12),
    st.floats(0, 0.2),
    st.floats(0, 2),
)
def test_segments_are_ordered_apart_bounded_and_hold_the_sure_speech(
    parts: list[tuple[float, float]], max_s: float, pad_s: float, join_pause_s: float
) -> None:
    probability_W = curve((0.1, 0.0), *parts)
    duration_s = len(probability_W) / RATE_HZ
    chosen = config(max_s=max_s, pad_s=pad_s, join_pause_s=join_pause_s, min_speech_s=0.0)
    spans = segments(probability_W, RATE_HZ, duration_s, chosen)
    for start_s, end_s in spans:
        assert 0 <= start_s < end_s <= duration_s
        assert end_s - start_s <= max_s + 1e-9
    assert all(before[1] <= after[0] + 1e-9 for before, after in itertools.pairwise(spans))
    for window in np.flatnonzero(probability_W >= 0.5):
        middle_s = (window + 0.5) / RATE_HZ
        assert sum(start_s <= middle_s < end_s for start_s, end_s in spans) == 1


def test_children_point_into_the_parent_and_get_only_their_own_words() -> None:
    words = (("one", 0.5, 0.9), ("two", 1.9, 2.3), ("three", 2.4, 2.8))
    parent = Utterance("p", "a.flac", 9.0, offset=100.0, text="One two three.", speaker="s", words=words)
    first, second, third = cut(parent, [(0.25, 2.2), (2.2, 3.0), (4.0, 6.0)])
    assert [child.id for child in (first, second, third)] == ["p-000000", "p-000001", "p-000002"]
    assert (first.offset, first.duration, second.offset, second.duration) == (100.25, 1.95, 102.2, 0.8)
    assert first.words == (("one", 0.25, 0.65), ("two", 1.65, 1.95))
    assert (first.text, second.text, third.text, third.words) == ("one two", "three", None, None)
    assert (third.speaker, third.audio_filepath, third.extra) == ("s", "a.flac", {"parent": "p"})


def test_without_word_times_the_text_of_the_parent_goes_to_nobody() -> None:
    parent = Utterance("p", "a.flac", 9.0, text="one two three")
    assert [child.text for child in cut(parent, [(0, 1), (2, 3)])] == [None, None]


def test_pads_that_leave_no_room_for_speech_are_refused() -> None:
    with pytest.raises(ValidationError, match="two pads"):
        config(max_s=2.0, pad_s=0.6)
