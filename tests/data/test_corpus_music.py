import numpy as np
import pytest

from data.corpus.music import (
    all_combinations,
    caption_of,
    caption_words,
    sample_attributes,
    split_combinations,
    synthesize_music,
)


def test_combinations_of_the_splits_are_disjoint_and_complete() -> None:
    captions = {split: {caption_of(item) for item in items} for split, items in split_combinations(1).items()}
    assert not captions["train"] & captions["test"]
    assert not captions["train"] & captions["dev"]
    assert not captions["dev"] & captions["test"]
    assert len(set().union(*captions.values())) == len(all_combinations()) == 324


def test_captions_use_a_closed_list_of_words() -> None:
    used = {word for item in all_combinations() for word in caption_of(item).split()}
    assert used == set(caption_words())


def test_a_clip_hangs_on_attributes_and_generator_alone() -> None:
    attributes = sample_attributes(np.random.default_rng(5))
    first, second = (synthesize_music(attributes, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, synthesize_music(attributes, np.random.default_rng(8)))


@pytest.mark.parametrize("index", range(0, 324, 17))
def test_every_clip_is_loud_enough_and_as_long_as_asked(index: int) -> None:
    wave = synthesize_music(all_combinations()[index], np.random.default_rng(index), duration_s=2.4)
    assert wave.dtype == np.float32
    assert len(wave) == 38400
    assert 0.5 < np.abs(wave).max() <= 1.0


def test_registers_differ_in_pitch() -> None:
    def centroid_hz(register: str) -> float:
        attributes = {"tempo": "medium", "register": register, "instrument": "flute", "direction": "steady"}
        wave = synthesize_music({**attributes, "drums": "without"}, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(wave)) ** 2
        return float((power * np.fft.rfftfreq(len(wave), 1 / 16000)).sum() / power.sum())

    assert 2 * centroid_hz("low") < centroid_hz("middle") < centroid_hz("high") / 2
