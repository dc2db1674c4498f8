"""Built-in units of long recordings: the bits of one piece, and memory for some seconds of spectra."""

import tracemalloc

import numpy as np
import pytest
import torch

from model.audio_tokenizers import features, residual_kmeans
from model.audio_tokenizers.features import log_mel, mfcc39
from model.audio_tokenizers.kmeans_units import KMeansUnitTokenizer
from model.audio_tokenizers.residual_kmeans import ResidualKMeansTokenizer

RATE = 16000


def noise(seconds: float) -> np.ndarray:
    times = np.arange(int(seconds * RATE))
    return (np.random.default_rng(0).normal(0, 0.1, times.size) * (1.5 + np.sin(times / 9000))).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.004, 0.9, 15.99, 31.99, 32.02, 50.3])
def test_features_in_runs_have_the_bits_of_the_whole(seconds, monkeypatch):
    wave_N = noise(seconds)
    in_runs = [mfcc39(wave_N, RATE, 25.0), log_mel(wave_N, RATE, 50.0), log_mel(wave_N, RATE, 100 / 7)]
    monkeypatch.setattr(features, "_CHUNK_FRAMES", 1 << 40)
    monkeypatch.setattr(features, "_CHUNK_SAMPLES", 1 << 40)
    whole = [mfcc39(wave_N, RATE, 25.0), log_mel(wave_N, RATE, 50.0), log_mel(wave_N, RATE, 100 / 7)]
    monkeypatch.setattr(features, "_CHUNK_FRAMES", 100)
    monkeypatch.setattr(features, "_CHUNK_SAMPLES", 5000)
    in_short_runs = [mfcc39(wave_N, RATE, 25.0), log_mel(wave_N, RATE, 50.0), log_mel(wave_N, RATE, 100 / 7)]
    for one, other, short in zip(whole, in_runs, in_short_runs, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, short)


def test_the_level_is_that_of_numpys_own_mean():
    wave_N = noise(40.0)
    assert features._mean_square(wave_N) == np.square(np.asarray(wave_N, np.float64)).mean()


def test_codes_in_parts_are_the_codes_of_the_whole(monkeypatch):
    tokenizer = ResidualKMeansTokenizer(torch.randn(3, 16, 80) * 3, RATE, 25.0)
    features_TM = tokenizer.features(noise(20.0))
    codes_TK, distances_T = tokenizer._quantise(features_TM)
    monkeypatch.setattr(residual_kmeans, "_PART_FRAMES", 77)
    codes_in_parts_TK, distances_in_parts_T = tokenizer._quantise(features_TM)
    assert np.array_equal(codes_TK, codes_in_parts_TK)
    assert np.allclose(distances_T, distances_in_parts_T, rtol=1e-12)


@pytest.mark.parametrize("kind", ["kmeans_units", "residual_kmeans"])
def test_encoding_takes_little_more_memory_than_the_recording(kind):
    tokenizer = {
        "kmeans_units": lambda: KMeansUnitTokenizer(torch.randn(8, 39), RATE, 25.0),
        "residual_kmeans": lambda: ResidualKMeansTokenizer(torch.randn(2, 8, 80), RATE, 25.0),
    }[kind]()
    wave_N = noise(240.0)
    tracemalloc.start()
    tokenizer.encode([wave_N])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 60e6 + 2 * wave_N.nbytes  # whole spectra: 350 MB and more
