"""Audio tokenizers: codes of one wave stay the same in any company, for clips of any length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from data.errors import InputError
from data.timing import samples_to_frames
from model.audio_tokenizers.base import fit_audio_tokenizer, load_audio_tokenizer, stream_info, tokenizer_id
from model.audio_tokenizers.features import log_mel, mfcc39
from model.audio_tokenizers.kmeans_units import KMeansUnitTokenizer
from model.audio_tokenizers.residual_kmeans import ResidualKMeansTokenizer
from model.config import AudioTokenizerConfig, KMeansUnits, ResidualKMeans
from model.mel_inversion import mel_to_wave

RATE = 16000


def tone(frequency_hz: float, samples: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.01, samples)
    return (0.3 * np.sin(2 * np.pi * frequency_hz * np.arange(samples) / RATE) + noise).astype(np.float32)


def fitted(kind: str):
    config = (
        KMeansUnits(kind="kmeans_units", codebook_size=12)
        if kind == "kmeans_units"
        else ResidualKMeans(kind="residual_kmeans", codebook_size=8, num_codebooks=3)
    )
    cls = KMeansUnitTokenizer if kind == "kmeans_units" else ResidualKMeansTokenizer
    waves = [tone(f, 16000, seed) for seed, f in enumerate((110, 220, 440, 880, 1760))]
    return fit_audio_tokenizer(config, np.concatenate([cls.features_of(config, w) for w in waves]), seed=1)


@pytest.fixture(scope="module", params=["kmeans_units", "residual_kmeans"])
def tokenizer(request):
    return fitted(request.param)


def test_codes_of_a_wave_do_not_depend_on_its_batch(tokenizer):
    waves = [tone(300 + 100 * i, 5000 + 777 * i) for i in range(4)]
    alone = [tokenizer.encode([wave])[0] for wave in waves]
    for codes, single in zip(tokenizer.encode(waves), alone, strict=True):
        assert np.array_equal(codes, single)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(0, 3000))
def test_any_length_gives_its_frames_and_never_none(tokenizer, samples):
    codes = tokenizer.encode([tone(440, samples)])[0]
    assert codes.shape == (samples_to_frames(samples, RATE, 25), tokenizer.num_codebooks)
    assert codes.dtype == np.int16
    assert (samples == 0) == (len(codes) == 0)


def test_silence_is_encoded(tokenizer):
    codes = tokenizer.encode([np.zeros(8000, np.float32)])[0]
    assert len(codes) == 13
    assert (codes >= 0).all()
    assert (codes < tokenizer.codebook_size).all()


def test_a_saved_tokenizer_encodes_the_same(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path))
    loaded = load_audio_tokenizer(str(tmp_path))
    wave = tone(523, 12345)
    assert np.array_equal(loaded.encode([wave])[0], tokenizer.encode([wave])[0])
    info = stream_info(loaded, tokenizer_id(str(tmp_path)))
    assert (info.num_codebooks, info.codebook_size) == (tokenizer.num_codebooks, tokenizer.codebook_size)
    assert len(info.tokenizer_id) == 16


def test_the_same_seed_fits_the_same_bytes(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "a"))
    fitted(tokenizer.kind).save(str(tmp_path / "b"))
    assert tokenizer_id(str(tmp_path / "a")) == tokenizer_id(str(tmp_path / "b"))


def test_music_codes_sound_like_the_music():
    tokenizer = fitted("residual_kmeans")
    wave = tone(440, 16000)
    heard = tokenizer.decode(tokenizer.encode([wave])[0])
    assert heard.shape == (16000,)
    assert np.array_equal(heard, tokenizer.decode(tokenizer.encode([wave])[0]))
    loudest_hz = [np.abs(np.fft.rfft(w)).argmax() for w in (wave, heard)]
    assert abs(loudest_hz[0] - loudest_hz[1]) < 20
    assert tokenizer.decode(np.zeros((1, 3), np.int16)).shape == (640,)
    assert tokenizer.decode(np.zeros((0, 3), np.int16)).shape == (0,)


def test_quality_names_distortion_use_and_bitrate(tokenizer):
    quality = tokenizer.quality(tokenizer.features(tone(440, 16000)))
    use = {"codebook_used", "entropy_bits", "perplexity"}
    assert set(quality) == {"relative_distortion", "bitrate_bps", "entropy_bps", *use}


def test_more_codebooks_leave_less_distortion():
    config = ResidualKMeans(kind="residual_kmeans", codebook_size=8, num_codebooks=1)
    features = np.random.default_rng(0).normal(size=(400, 80)).astype(np.float32)
    distortions = [
        fit_audio_tokenizer(config.model_copy(update={"num_codebooks": k}), features, 1).quality(features)
        for k in (1, 2, 4)
    ]
    values = [quality["relative_distortion"] for quality in distortions]
    assert values[0] > values[1] > values[2]


def test_both_frame_rates_of_the_recipes_are_made():
    wave = tone(440, 16000)
    assert mfcc39(wave, RATE, 25).shape == (25, 39)
    assert mfcc39(wave, RATE, 50).shape == (50, 39)
    assert mfcc39(wave, 8000, 50).shape == (100, 39)
    assert log_mel(wave, RATE).shape == (100, 80)


def test_cepstra_forget_the_level():
    wave = tone(440, 16000)
    assert np.allclose(mfcc39(wave, RATE, 25), mfcc39(0.25 * wave, RATE, 25))


def test_rates_that_do_not_fit_are_input_errors():
    with pytest.raises(InputError, match="multiple of 100"):
        mfcc39(tone(440, 1000), 22050, 25)
    with pytest.raises(InputError, match="divides 100"):
        mfcc39(tone(440, 1000), RATE, 30)


def test_inverted_mel_frames_have_the_mel_they_came_from():
    frames = log_mel(tone(440, 8000), RATE)
    wave = mel_to_wave(frames, RATE, 20)
    assert wave.shape == (8000,)
    assert np.abs(log_mel(wave, RATE) - frames).mean() < 0.25
    assert mel_to_wave(frames[:1], RATE, 2).shape == (160,)
    assert mel_to_wave(frames[:0], RATE, 2).shape == (0,)


def test_an_unknown_kind_and_an_empty_folder_are_input_errors(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        load_audio_tokenizer(str(tmp_path))
    (tmp_path / "config.json").write_text('{"kind": "codec"}')
    with pytest.raises(InputError, match="'codec' is unknown"):
        load_audio_tokenizer(str(tmp_path))


@pytest.mark.parametrize("kind", ["kmeans_units", "residual_kmeans", "ssl_units", "pitch_vq", "style"])
def test_a_codebook_that_int16_cannot_hold_is_refused(kind):
    fields = {"kind": kind, **({"path": "x", "layer": 1} if kind == "ssl_units" else {})}
    adapter = TypeAdapter(AudioTokenizerConfig)
    assert adapter.validate_python({**fields, "codebook_size": 32768}).codebook_size - 1 == np.iinfo(np.int16).max
    with pytest.raises(ValidationError, match="32768"):
        adapter.validate_python({**fields, "codebook_size": 32769})
