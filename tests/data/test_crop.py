"""The crop curriculum."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.grammar.crop import CropCurriculum, crop_record
from data.store import Record, StreamInfo

STREAMS = {"unit": StreamInfo(25.0, 1, 200, "u"), "music": StreamInfo(10.0, 2, 64, "m")}
WORDS = (("one", 0.0, 0.4), ("two", 0.4, 0.8), ("three", 0.8, 1.2), ("four", 1.24, 1.6), ("five", 1.6, 2.0))
RECORD = Record(
    id="u1",
    text="one two three four five",
    speaker="amy",
    duration_s=2.0,
    words=WORDS,
    streams={"unit": np.arange(50, dtype=np.int16), "music": np.arange(40, dtype=np.int16)},
)


class Whole:
    name, croppable = "asr", True


class Uncut:
    name, croppable = "s2s", False


def curriculum(probability: float = 0.7, seed: int = 1) -> CropCurriculum:
    return CropCurriculum(probability, 100, seed, STREAMS)


def test_a_crop_is_consistent() -> None:
    cut = crop_record(RECORD, 1, 3, STREAMS)
    assert cut.text == "two three"
    assert cut.streams["unit"].tolist() == list(range(10, 30))
    assert cut.streams["music"].tolist() == list(range(8, 24))
    assert cut.duration_s == pytest.approx(0.8)
    assert [word for word, _, _ in cut.words] == ["two", "three"]
    assert [value for word in cut.words for value in word[1:]] == pytest.approx([0.0, 0.4, 0.4, 0.8])
    assert (cut.id, cut.speaker) == ("u1", "amy")


def test_deduplicated_codes_are_cut_with_their_durations() -> None:
    record = replace(
        RECORD,
        streams={"unit": np.array([5, 6, 7], np.int16)},
        durations={"unit": np.array([15, 10, 25], np.int16)},
    )
    cut = crop_record(record, 1, 3, STREAMS)  # frames 10 to 30
    assert cut.streams["unit"].tolist() == [5, 6, 7]
    assert cut.durations["unit"].tolist() == [5, 10, 5]
    assert crop_record(record, 0, 1, STREAMS).streams["unit"].tolist() == [5]


def test_a_code_of_several_units_is_cut_out_whole_with_all_its_durations() -> None:
    record = replace(
        RECORD,
        streams={"unit": np.array([5, 6, 7], np.int16)},
        durations={"unit": np.array([4, -5, 8, -3, 25, -5], np.int16)},  # frames 0 to 9, 9 to 20, 20 to 50
    )
    cut = crop_record(record, 1, 3, STREAMS)  # frames 10 to 30
    assert cut.streams["unit"].tolist() == [6, 7]
    assert cut.durations["unit"].tolist() == [8, -3, 25, -5]
    assert cut.duration_s == pytest.approx(41 / 25)


@given(st.integers(0, 4), st.integers(1, 5))
def test_no_crop_is_empty(start: int, length: int) -> None:
    cut = crop_record(RECORD, start, min(5, start + length), STREAMS)
    assert all(len(codes) >= STREAMS[name].num_codebooks for name, codes in cut.streams.items())
    assert cut.text


def test_words_past_the_end_of_the_codes_keep_one_frame() -> None:
    record = replace(RECORD, streams={"unit": np.arange(3, dtype=np.int16)})
    assert crop_record(record, 4, 5, STREAMS).streams["unit"].tolist() == [2]


def test_spans_have_one_to_four_words_and_depend_on_the_visit_alone() -> None:
    spans = [curriculum().span(Whole(), RECORD, visit, 0) for visit in range(400)]
    cut = [span for span in spans if span]
    assert 0.6 < len(cut) / 400 < 0.8
    assert {stop - start for start, stop in cut} == {1, 2, 3, 4}
    assert {start for start, _ in cut} == {0, 1, 2, 3, 4}
    assert all(0 <= start < stop <= 5 for start, stop in cut)
    assert [curriculum().span(Whole(), RECORD, visit, 99) for visit in range(400)] == spans
    assert [curriculum(seed=2).span(Whole(), RECORD, visit, 0) for visit in range(400)] != spans


def test_cropping_ends_and_spares_what_cannot_be_cut() -> None:
    always = curriculum(1.0)
    assert always.span(Whole(), RECORD, 0, 99)
    assert always.span(Whole(), RECORD, 0, 100) is None
    assert always.span(Uncut(), RECORD, 0, 0) is None
    for lacking in ({"words": None}, {"words": WORDS[:1]}, {"text": None}, {"streams": {}}):
        assert always.span(Whole(), replace(RECORD, **lacking), 0, 0) is None
    assert curriculum(0.0).span(Whole(), RECORD, 0, 0) is None
    assert always.crop(RECORD, None) is RECORD
