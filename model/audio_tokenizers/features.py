"""Frames of a waveform: cepstra for units, log-mel for what must be heard again.

Shapes: N = samples, F = analysis frames (100 Hz), T = frames of the tokenizer's rate, M = mel bands, D = features.

Every wave is analysed alone and in float64, so that its frames never depend on what is computed beside it. Analysis
frame t is centred on the middle of hop t, so T frames stand for T / frame_rate_hz seconds and none is delayed. What is
much larger than the features, float64 samples and spectra, is only ever there for some seconds of a recording.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy.fft

from data.errors import InputError
from data.timing import samples_to_frames, seconds_to_samples

ANALYSIS_RATE_HZ = 100
MFCC_WINDOW_S, MEL_WINDOW_S = 0.025, 0.05
NUM_CEPSTRA, CEPSTRAL_MELS = 13, 40
NUM_MELS = 80
MEL_FLOOR = 1e-4  # of full scale: below the quiet parts of a clip, above the noise of 16-bit samples
_POWER_FLOOR = 1e-8
_PREEMPHASIS = 0.97
_LEVEL = 0.1
_CHUNK_FRAMES = 1600  # 16 s
_CHUNK_SAMPLES = 1 << 19


def hop_samples(sample_rate: int) -> int:
    """Samples between analysis frames. Raises InputError where 10 ms are no whole number of them."""
    if sample_rate % ANALYSIS_RATE_HZ:
        raise InputError(
            f"sample_rate is {sample_rate} Hz, expected a multiple of {ANALYSIS_RATE_HZ} (8000, 16000, 24000, 44100): "
            "set the tokenizer's sample_rate to one; recordings of any rate are resampled to it"
        )
    return sample_rate // ANALYSIS_RATE_HZ


def frames_per_code(frame_rate_hz: float) -> int:
    """Analysis frames that one code covers. Raises InputError where that is no whole number."""
    ratio = ANALYSIS_RATE_HZ / frame_rate_hz
    if ratio < 1 or ratio != int(ratio):
        raise InputError(
            f"frame_rate_hz is {frame_rate_hz:g}, expected a rate that divides {ANALYSIS_RATE_HZ}: 12.5, 25, 50, 100"
        )
    return int(ratio)


def mel_fft_samples(sample_rate: int) -> int:
    """Length of the transform behind `log_mel`: the power of two that holds its window."""
    return _power_of_two(seconds_to_samples(MEL_WINDOW_S, sample_rate))


@lru_cache(maxsize=16)
def mel_filters(sample_rate: int, fft_samples: int, num_mels: int) -> np.ndarray:
    """Triangular filters (fft_samples // 2 + 1, M) of peak 1 on the HTK mel scale."""
    from transformers.audio_utils import mel_filter_bank

    # The lowest bands of a fine bank can fall between two bins; starting above 0 Hz keeps them from being empty.
    lowest_hz = sample_rate / fft_samples
    return mel_filter_bank(fft_samples // 2 + 1, num_mels, lowest_hz, sample_rate / 2, sample_rate, mel_scale="htk")


def mfcc39(wave_N: np.ndarray, sample_rate: int, frame_rate_hz: float) -> np.ndarray:
    """13 mel cepstra with deltas and delta-deltas (T, 39), mean- and variance-normalised over the clip.

    Computed at 100 Hz (Davis and Mermelstein 1980; deltas as in HTK, over two frames to either side), then averaged
    down to `frame_rate_hz`. 0 frames for an empty wave, at least 1 for any other.
    """
    num_frames = samples_to_frames(wave_N.size, sample_rate, frame_rate_hz)
    if not num_frames:
        return np.zeros((0, 3 * NUM_CEPSTRA))
    gain = _LEVEL / max(np.sqrt(_mean_square(wave_N)), 1e-4)  # so that the floor lies as deep in all
    window = seconds_to_samples(MFCC_WINDOW_S, sample_rate)
    group = frames_per_code(frame_rate_hz)
    filters_SM = mel_filters(sample_rate, _power_of_two(window), CEPSTRAL_MELS)
    cepstra = [
        scipy.fft.dct(np.log(magnitude_FS**2 @ filters_SM + _POWER_FLOOR), norm="ortho", axis=1)[:, :NUM_CEPSTRA]
        for magnitude_FS in _spectra(
            lambda start, end: _sharpened(wave_N, gain, start, end),
            wave_N.size,
            sample_rate,
            window,
            num_frames,
            group,
        )
    ]
    cepstra_FD = np.concatenate(cepstra)
    deltas_FD = _deltas(cepstra_FD)
    return np.hstack([_average(_normalise(f_FD), group) for f_FD in (cepstra_FD, deltas_FD, _deltas(deltas_FD))])


def log_mel(wave_N: np.ndarray, sample_rate: int, frame_rate_hz: float = ANALYSIS_RATE_HZ) -> np.ndarray:
    """Natural log of 80 mel magnitudes (T, 80), floored at log(MEL_FLOOR); `mel_to_wave` is its inverse at 100 Hz.

    A sine of full scale has magnitude about 0.5. 0 frames for an empty wave, at least 1 for any other.
    """
    num_frames = samples_to_frames(wave_N.size, sample_rate, frame_rate_hz)
    if not num_frames:
        return np.zeros((0, NUM_MELS))
    group = frames_per_code(frame_rate_hz)
    window = seconds_to_samples(MEL_WINDOW_S, sample_rate)
    filters_SM = mel_filters(sample_rate, mel_fft_samples(sample_rate), NUM_MELS)
    spectra = _spectra(
        lambda start, end: np.asarray(wave_N[start:end], np.float64),
        wave_N.size,
        sample_rate,
        window,
        num_frames,
        group,
    )
    return np.concatenate(
        [_average(np.log(np.maximum(magnitude_FS @ filters_SM, MEL_FLOOR)), group) for magnitude_FS in spectra]
    )


def _mean_square(wave_N: np.ndarray) -> float:
    """Of float64 squares, added up pairwise by halves as numpy itself does: the same bits, in bounded memory."""
    return _sum_of_squares(wave_N) / wave_N.size


def _sum_of_squares(wave_N: np.ndarray) -> np.float64:
    if wave_N.size <= _CHUNK_SAMPLES:
        return np.square(np.asarray(wave_N, np.float64)).sum()
    half = wave_N.size // 2
    half -= half % 8
    return _sum_of_squares(wave_N[:half]) + _sum_of_squares(wave_N[half:])


def _sharpened(wave_N: np.ndarray, gain: float, start: int, end: int) -> np.ndarray:
    """Samples [start, end) at the common level, high frequencies raised."""
    before = max(start - 1, 0)
    levelled_N = np.asarray(wave_N[before:end], np.float64) * gain
    sharpened_N = np.append(levelled_N[:1], levelled_N[1:] - _PREEMPHASIS * levelled_N[:-1])
    return sharpened_N[start - before :]


def _spectra(
    samples: Callable[[int, int], np.ndarray],
    num_samples: int,
    sample_rate: int,
    window: int,
    num_codes: int,
    group: int,
) -> Iterator[np.ndarray]:
    """Magnitudes (F, bins) of frames under a Hann window of sum 1, zeros beyond the clip's ends; `group` for each code.

    `samples(start, end)` gives float64 samples of the clip. In runs of at least `_CHUNK_FRAMES`, whole codes each.
    """
    hop = hop_samples(sample_rate)
    left = (window - hop) // 2
    hann_W = np.hanning(window + 1)[:-1]  # periodic
    step = group * -(-_CHUNK_FRAMES // group)
    starts = range(0, max(1, num_codes * group - step + 1), step)  # the last run takes in what is left over
    for first, last in pairwise([*starts, num_codes * group]):
        at = first * hop - left
        padded = np.zeros((last - first - 1) * hop + window)
        inside = samples(max(at, 0), min(max(at + padded.size, 0), num_samples))
        padded[max(-at, 0) : max(-at, 0) + inside.size] = inside
        frames_FW = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
        yield np.abs(scipy.fft.rfft(frames_FW * (hann_W / hann_W.sum()), _power_of_two(window), axis=1))


def _deltas(features_FD: np.ndarray) -> np.ndarray:
    padded = np.pad(features_FD, ((2, 2), (0, 0)), mode="edge")
    return (padded[3:-1] - padded[1:-3] + 2 * (padded[4:] - padded[:-4])) / 10


def _normalise(features_FD: np.ndarray) -> np.ndarray:
    deviation_D = features_FD.std(axis=0)
    return (features_FD - features_FD.mean(axis=0)) / np.maximum(deviation_D, 1e-3)


def _average(features_FD: np.ndarray, group: int) -> np.ndarray:
    return features_FD.reshape(-1, group, features_FD.shape[1]).mean(axis=1)


def _power_of_two(samples: int) -> int:
    return 1 << (samples - 1).bit_length()
