"""From log-mel frames back to sound: magnitudes by non-negative least squares, phases by Griffin and Lim.

Shapes: T = frames (100 Hz), M = mel bands, S = bins of the spectrum, N = samples.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from data.timing import seconds_to_samples
from model.audio_tokenizers.features import MEL_WINDOW_S, NUM_MELS, hop_samples, mel_fft_samples, mel_filters

MAGNITUDE_UPDATES = 20
MOMENTUM = 0.99


def mel_to_wave(log_mel_TM: np.ndarray, sample_rate: int, iterations: int = 40) -> np.ndarray:
    """Float32 samples (T * hop,) whose `features.log_mel` at 100 Hz comes near `log_mel_TM`.

    Fast Griffin-Lim (Perraudin et al. 2013), `iterations` rounds from a fixed phase: the same frames give the same
    samples. Peaks beyond full scale are scaled down.
    """
    num_frames = len(log_mel_TM)
    hop = hop_samples(sample_rate)
    if not num_frames:
        return np.zeros(0, np.float32)
    magnitude_ST = torch.from_numpy(mel_to_magnitude(log_mel_TM, sample_rate).T.astype(np.float32))
    wave_N = _griffin_lim(magnitude_ST, sample_rate, iterations)[: num_frames * hop].numpy()
    return wave_N / max(1.0, float(np.abs(wave_N).max()))


def mel_to_magnitude(log_mel_TM: np.ndarray, sample_rate: int) -> np.ndarray:
    """Non-negative magnitudes (T, S) whose mel bands are exp(`log_mel_TM`) in the least-squares sense.

    The clipped pseudo-inverse, then the multiplicative updates of Lee and Seung (2001).
    """
    filters_SM, inverse_MS = _filters_and_inverse(sample_rate)
    mel_TM = np.exp(np.asarray(log_mel_TM, dtype=np.float64))
    magnitude_TS = np.maximum(mel_TM @ inverse_MS, 1e-8)
    wanted_TS = mel_TM @ filters_SM.T
    for _ in range(MAGNITUDE_UPDATES):
        magnitude_TS *= wanted_TS / np.maximum(magnitude_TS @ filters_SM @ filters_SM.T, 1e-12)
    return magnitude_TS


@lru_cache(maxsize=4)
def _filters_and_inverse(sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    filters_SM = mel_filters(sample_rate, mel_fft_samples(sample_rate), NUM_MELS)
    return filters_SM, np.linalg.pinv(filters_SM)


def _griffin_lim(magnitude_ST: torch.Tensor, sample_rate: int, iterations: int) -> torch.Tensor:
    """Samples whose spectrum has these magnitudes. Frame t of the analysis is centred on (t + 1/2) hops."""
    hop, fft_samples = hop_samples(sample_rate), mel_fft_samples(sample_rate)
    window_samples = seconds_to_samples(MEL_WINDOW_S, sample_rate)
    window_W = torch.hann_window(window_samples)
    # `features` divides by the window's sum; torch does not.
    target_ST = magnitude_ST * window_W.sum()
    length = (magnitude_ST.shape[1] - 1) * hop
    options: dict[str, Any] = {
        "n_fft": fft_samples,
        "hop_length": hop,
        "win_length": window_samples,
        "window": window_W,
    }
    if length < fft_samples:  # reflection at the ends needs some length: go on with silence
        spare = -(-fft_samples // hop)
        target_ST = torch.nn.functional.pad(target_ST, (0, spare))
        length += spare * hop
    generator = torch.Generator().manual_seed(0)
    phase_ST = torch.rand(target_ST.shape, generator=generator) * (2 * torch.pi)
    spectrum_ST = torch.polar(target_ST, phase_ST)
    previous_ST = torch.zeros_like(spectrum_ST)
    for _ in range(iterations):
        wave_N = torch.istft(spectrum_ST, **options, length=length)
        rebuilt_ST = torch.stft(wave_N, **options, pad_mode="constant", return_complex=True)
        ahead_ST = rebuilt_ST + MOMENTUM * (rebuilt_ST - previous_ST)
        previous_ST = rebuilt_ST
        spectrum_ST = target_ST * (ahead_ST / ahead_ST.abs().clamp_min(1e-12))
    wave_N = torch.istft(spectrum_ST, **options, length=length)
    # The first frame's centre is half a hop after the clip's beginning.
    return torch.nn.functional.pad(wave_N, (hop // 2, hop - hop // 2))
