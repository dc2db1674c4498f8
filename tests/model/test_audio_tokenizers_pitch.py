"""Pitch and style: F0 where there is one, codes for any sound, the speaker's range taken out."""

from functools import cache

import numpy as np
import pytest

from data.timing import samples_to_frames
from model.audio_tokenizers.base import load_audio_tokenizer, tokenizer_id
from model.audio_tokenizers.pitch import log_f0
from model.audio_tokenizers.pitch_vq import PitchVQTokenizer
from model.audio_tokenizers.speakers import SpeakerMeans
from model.audio_tokenizers.style import StyleTokenizer
from model.config import PitchVQ, Style

RATE = 16000
PITCH = PitchVQ(kind="pitch_vq", codebook_size=8, channels=8, steps=60, batch_size=8, crop_codes=6)
STYLE = Style(kind="style", codebook_size=4)
CLASSES = {"pitch": (PitchVQTokenizer, PITCH), "style": (StyleTokenizer, STYLE)}


def voice(f0_hz: np.ndarray) -> np.ndarray:
    """A buzz of ten harmonics under an F0 for every sample (N,)."""
    phase_N = 2 * np.pi * np.cumsum(f0_hz) / RATE
    return 0.1 * sum(np.sin(k * phase_N) / k for k in range(1, 11))


def glide(low_hz: float, high_hz: float, duration_s: float = 1.2) -> np.ndarray:
    return voice(np.geomspace(low_hz, high_hz, int(duration_s * RATE)))


@cache
def corpus() -> tuple[list[np.ndarray], list[str]]:
    """A low and a high speaker, both with rising, falling and level utterances."""
    waves, speakers = [], []
    for speaker, base_hz in (("low", 100.0), ("high", 220.0)):
        for ratio in (0.8, 0.9, 1.0, 1.1, 1.25):
            waves.append(np.concatenate([glide(base_hz, base_hz * ratio), np.zeros(3200), glide(base_hz, base_hz)]))
            speakers.append(speaker)
    return waves, speakers


@cache
def fitted(name: str):
    kind, config = CLASSES[name]
    waves, speakers = corpus()
    return kind.fit_utterances(config, [kind.features_of(config, wave_N) for wave_N in waves], speakers, 0)


@pytest.mark.parametrize("f0_hz", [80.0, 120.0, 300.0])
def test_the_f0_of_a_buzz_is_found_to_a_quarter_of_a_semitone(f0_hz):
    found_F = log_f0(voice(np.full(RATE, f0_hz)), RATE, 12.5)
    assert len(found_F) == 104  # 13 codes of 8 frames
    middle_F = found_F[5:90]
    assert np.isfinite(middle_F).all()
    assert np.abs(middle_F - np.log(f0_hz)).max() * 12 / np.log(2) < 0.25


def test_frames_lie_where_the_sound_is_and_blocks_leave_no_seam():
    wave_N = np.concatenate([np.zeros(RATE), voice(np.full(5 * RATE, 150.0)), np.zeros(RATE)])
    voiced_F = np.isfinite(log_f0(wave_N, RATE, 12.5))
    assert abs(np.flatnonzero(voiced_F)[0] - 100) <= 2
    assert abs(np.flatnonzero(voiced_F)[-1] - 599) <= 2
    assert voiced_F[103:597].all()  # the seam of two blocks lies at 500


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "wave_N",
    [
        np.zeros(RATE),
        np.random.default_rng(0).normal(0, 0.1, RATE),
        np.full(RATE, 0.5),
        np.array([0.3]),
        np.random.default_rng(0).normal(0, 0.1, 100),
        np.zeros(0),
    ],
    ids=["silence", "noise", "constant", "one sample", "a few samples", "empty"],
)
def test_sound_without_pitch_has_valid_codes(name, wave_N):
    tokenizer = fitted(name)
    for speaker in (None, "low", "nobody"):
        (codes_T1,) = tokenizer.encode([wave_N.astype(np.float32)], [speaker])
        assert codes_T1.shape == (samples_to_frames(wave_N.size, RATE, tokenizer.frame_rate_hz), 1)
        assert codes_T1.dtype == np.int16
        assert codes_T1.size == 0 or 0 <= codes_T1.min() <= codes_T1.max() < tokenizer.codebook_size


@pytest.mark.parametrize("name", CLASSES)
def test_a_corpus_of_silence_can_be_fitted_and_encoded(name):
    kind, config = CLASSES[name]
    if name == "pitch":
        config = config.model_copy(update={"steps": 3})
    features = [kind.features_of(config, np.zeros(RATE)) for _ in range(3)]
    tokenizer = kind.fit_utterances(config, features, [None, "a", "a"], 0)
    assert np.isfinite(list(tokenizer.quality_of_utterances(features, [None, "a", "a"]).values())).all()
    assert len(tokenizer.encode([np.zeros(RATE)])[0]) == samples_to_frames(RATE, RATE, config.frame_rate_hz)


@pytest.mark.parametrize("name", CLASSES)
def test_a_wave_has_the_same_codes_alone_and_in_a_batch_and_after_saving(name, tmp_path):
    waves, speakers = corpus()
    together = fitted(name).encode(waves, speakers)
    fitted(name).save(str(tmp_path / name))
    loaded = load_audio_tokenizer(str(tmp_path / name))
    for wave_N, speaker, codes_T1 in zip(waves, speakers, together, strict=True):
        assert np.array_equal(fitted(name).encode([wave_N], [speaker])[0], codes_T1)
        assert np.array_equal(loaded.encode([wave_N], [speaker])[0], codes_T1)


@pytest.mark.parametrize("name", CLASSES)
def test_two_fits_of_one_seed_are_the_same_bytes(name, tmp_path):
    kind, config = CLASSES[name]
    waves, speakers = corpus()
    again = kind.fit_utterances(config, [kind.features_of(config, wave_N) for wave_N in waves], speakers, 0)
    fitted(name).save(str(tmp_path / "a"))
    again.save(str(tmp_path / "b"))
    assert tokenizer_id(str(tmp_path / "a")) == tokenizer_id(str(tmp_path / "b"))


def test_the_same_melody_in_two_voices_has_the_same_pitch_codes():
    low, high = glide(95, 120), glide(95 * 2.2, 120 * 2.2)  # the speakers' means are a factor of 2.2 apart
    codes = fitted("pitch").encode([low, high], ["low", "high"])
    assert (codes[0] == codes[1]).mean() > 0.8
    right, wrong = fitted("pitch").encode([high, high], ["high", "low"])
    assert (right == wrong).mean() < 0.9


def test_codes_give_the_melody_back():
    tokenizer = fitted("pitch")
    (codes_T1,) = tokenizer.encode([glide(80, 125)], ["low"])
    heard_F = tokenizer.contour(codes_T1, "low")
    assert len(heard_F) == 8 * len(codes_T1)
    begin, end = np.nanmean(heard_F[8:32]), np.nanmean(heard_F[-32:-8])
    assert 70 < begin < end < 140
    assert end / begin > 1.1
    assert tokenizer.contour(np.zeros((0, 1), np.int16)).shape == (0,)


@pytest.mark.parametrize("name", CLASSES)
def test_quality_names_distortion_use_and_bits(name):
    waves, speakers = corpus()
    kind, config = CLASSES[name]
    quality = fitted(name).quality_of_utterances([kind.features_of(config, wave_N) for wave_N in waves], speakers)
    assert 0 <= quality["relative_distortion"] < 0.7
    assert quality["entropy_bps"] <= quality["bitrate_bps"] == config.frame_rate_hz * np.log2(config.codebook_size)
    assert quality["codebook_used"] > 0.4


def test_speakers_with_little_voice_count_as_unknown():
    features = [np.full((60, 1), 5.0), np.full((10, 1), 6.0), np.full((60, 1), np.nan)]
    means = SpeakerMeans.fit(features, ["much", "little", "none"])
    assert means.of("much").tolist() == [5.0]
    assert means.of("little") is means.of("none") is means.of(None) is None
    assert means.everyone_D.tolist() == [5.0]


def test_style_tells_loud_from_soft_and_voiced_from_whispered():
    rng = np.random.default_rng(1)
    buzz, noise = voice(np.full(RATE, 120.0)), rng.normal(0, 0.1, RATE)
    waves = [buzz, buzz * 0.02, noise, noise * 0.02] * 3
    kind, config = CLASSES["style"]
    features = [kind.features_of(config, wave_N) for wave_N in waves]
    tokenizer = kind.fit_utterances(config, features, ["a"] * len(waves), 0)
    codes = [int(codes_T1[0, 0]) for codes_T1 in tokenizer.encode(waves, ["a"] * len(waves))]
    assert len(set(codes[:4])) == 4
    assert codes[:4] == codes[4:8] == codes[8:]
