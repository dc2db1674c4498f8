"""Speech units: k-means over normalised cepstra, as the first iteration of HuBERT has them (Hsu et al. 2021).

Shapes: N = samples or points, T = frames, D = features, K = clusters.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from model.audio_tokenizers.base import read_tensors, write_tokenizer
from model.audio_tokenizers.code_quality import code_statistics
from model.audio_tokenizers.features import mfcc39
from model.audio_tokenizers.kmeans import assign, fit_kmeans
from model.config import KMeansUnits


class KMeansUnitTokenizer:
    """One codebook over MFCC39. What it keeps is what is said; level and much of the voice are normalised away."""

    kind = "kmeans_units"
    num_codebooks = 1

    def __init__(self, centroids_KD: torch.Tensor, sample_rate: int, frame_rate_hz: float) -> None:
        self.centroids_KD = centroids_KD
        self.sample_rate = sample_rate
        self.frame_rate_hz = frame_rate_hz
        self._exact_KD = centroids_KD.double()

    @property
    def codebook_size(self) -> int:
        """Number of clusters."""
        return len(self.centroids_KD)

    @staticmethod
    def features_of(config: KMeansUnits, wave_N: np.ndarray) -> np.ndarray:
        """The frames (T, 39) float32 that a tokenizer of `config` is fitted on."""
        return mfcc39(wave_N, config.sample_rate, config.frame_rate_hz).astype(np.float32)

    @classmethod
    def fit(cls, config: KMeansUnits, features_ND: np.ndarray, seed: int) -> "KMeansUnitTokenizer":
        """Fit on frames (N, 39)."""
        points_ND = torch.from_numpy(np.ascontiguousarray(features_ND, dtype=np.float32))
        centroids_KD = fit_kmeans(points_ND, config.codebook_size, config.iterations, seed)
        return cls(centroids_KD, config.sample_rate, config.frame_rate_hz)

    def features(self, wave_N: np.ndarray) -> np.ndarray:
        """The frames (T, 39) that are quantised."""
        return mfcc39(wave_N, self.sample_rate, self.frame_rate_hz)

    def encode(self, waves: Sequence[np.ndarray], speakers: Sequence[str | None] | None = None) -> list[np.ndarray]:
        """int16 units (T, 1) of each float wave (N,) at `sample_rate`."""
        return [self.quantise(self.features(wave_N)) for wave_N in waves]

    def quality(self, features_ND: np.ndarray) -> dict[str, float]:
        """Distortion per frame relative to the variance, use of the codebook, and bits per second."""
        points_ND = torch.from_numpy(np.asarray(features_ND, dtype=np.float64))
        labels_N, distances_N = assign(points_ND, self._exact_KD)
        variance = float((points_ND - points_ND.mean(0)).square().sum(1).mean())
        return {
            "relative_distortion": float(distances_N.mean()) / max(variance, 1e-12),
            **code_statistics(labels_N.numpy()[:, None], self.codebook_size, self.frame_rate_hz),
        }

    def save(self, folder: str) -> None:
        """Write config.json and model.safetensors."""
        write_tokenizer(self, folder, {"centroids": self.centroids_KD.contiguous()})

    @classmethod
    def load(cls, folder: str, config: dict[str, Any]) -> "KMeansUnitTokenizer":
        """Read what `save` wrote."""
        return cls(read_tensors(folder)["centroids"], config["sample_rate"], config["frame_rate_hz"])

    def quantise(self, features_TD: np.ndarray) -> np.ndarray:
        """int16 units (T, 1) of frames that `features` made."""
        labels_T, _ = assign(torch.from_numpy(np.asarray(features_TD, dtype=np.float64)), self._exact_KD)
        return labels_T.numpy().astype(np.int16)[:, None]
