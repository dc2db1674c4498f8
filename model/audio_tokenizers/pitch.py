"""F0 contours by YIN (de Cheveigné and Kawahara 2002; librosa's), with a voicing decision of ours.

librosa's pYIN decides on voicing too, but runs at some 11 x real time on one core where this runs at about 200; on
synthetic voices the two agree on voicing in 87 % of the frames, and in F0 to 0.08 semitones where both find it.

Shapes: N = samples, F = analysis frames (100 Hz, centred on the middle of their hop), W = window.
"""

import numpy as np

from data.timing import samples_to_frames
from model.audio_tokenizers.features import frames_per_code, hop_samples

MIN_CORRELATION = 0.5  # of a voiced frame with itself one period later
_QUIET = 0.01  # of the clip's loud frames: what lies below is unvoiced
_SILENT = 1e-4  # of full scale
_BLOCK_FRAMES = 500  # bounds the memory of a long recording


def log_f0(
    wave_N: np.ndarray, sample_rate: int, frame_rate_hz: float, min_hz: float = 60.0, max_hz: float = 500.0
) -> np.ndarray:
    """Natural log of F0 in Hz (F,), NaN where unvoiced; F is a whole number of frames per code.

    0 frames for an empty wave. Silence and noise are unvoiced throughout, never an error.
    """
    num_frames = samples_to_frames(wave_N.size, sample_rate, frame_rate_hz) * frames_per_code(frame_rate_hz)
    if not num_frames:
        return np.zeros(0)
    hop = hop_samples(sample_rate)
    # Half a window must hold the longest period, and the correlation compares halves up to that far apart.
    window = 1 << int(np.ceil(np.log2(3 * sample_rate / min_hz)))
    left = (window - hop) // 2
    padded = np.zeros((num_frames - 1) * hop + window)
    inside = np.asarray(wave_N, np.float64)[: padded.size - left]
    padded[left : left + inside.size] = inside
    blocks = []
    for first in range(0, num_frames, _BLOCK_FRAMES):
        last = min(first + _BLOCK_FRAMES, num_frames) - 1
        blocks.append(_block(padded[first * hop : last * hop + window], sample_rate, hop, window, min_hz, max_hz))
    f0_F, correlation_F, level_F = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    loud = max(_QUIET * np.percentile(level_F, 95), _SILENT)
    voiced_F = (correlation_F >= MIN_CORRELATION) & (level_F >= loud)
    return np.where(voiced_F, np.log(f0_F), np.nan)


def _block(
    samples: np.ndarray, sample_rate: int, hop: int, window: int, min_hz: float, max_hz: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F0 (F,) of every frame, its correlation over one period, and its level."""
    import librosa

    frames_FW = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    with np.errstate(all="ignore"):  # silence has no period
        f0_F = librosa.yin(
            samples, fmin=min_hz, fmax=max_hz, sr=sample_rate, frame_length=window, hop_length=hop, center=False
        )
    f0_F = np.clip(np.nan_to_num(f0_F, nan=min_hz), min_hz, max_hz)
    period_F = np.rint(sample_rate / f0_F).astype(np.int64)
    half = window // 2
    now_FW = frames_FW[:, :half]
    later_FW = np.take_along_axis(frames_FW, period_F[:, None] + np.arange(half), axis=1)
    now_FW = now_FW - now_FW.mean(1, keepdims=True)
    later_FW = later_FW - later_FW.mean(1, keepdims=True)
    power_F = np.sqrt(np.square(now_FW).sum(1) * np.square(later_FW).sum(1))
    correlation_F = (now_FW * later_FW).sum(1) / np.maximum(power_F, 1e-12)
    return f0_F, correlation_F, frames_FW.std(axis=1)
