"""Music codes: residual k-means over log-mel frames, each codebook quantising what the ones before it left.

The residual quantiser of SoundStream (Zeghidour et al. 2021) on fixed features instead of learnt ones.
Shapes: N = samples or points, T = frames, M = mel bands, K = codebooks, C = codes of a codebook.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from model.audio_tokenizers.base import read_tensors, write_tokenizer
from model.audio_tokenizers.code_quality import code_statistics
from model.audio_tokenizers.features import frames_per_code, log_mel
from model.audio_tokenizers.kmeans import assign, fit_kmeans
from model.config import ResidualKMeans
from model.mel_inversion import mel_to_wave

GRIFFIN_LIM_ITERATIONS = 40
_PART_FRAMES = 16384  # bounds the copies of a long recording's frames


class ResidualKMeansTokenizer:
    """Several codebooks over log-mel frames; the sum of a frame's centroids is its log-mel again."""

    kind = "residual_kmeans"

    def __init__(self, codebooks_KCM: torch.Tensor, sample_rate: int, frame_rate_hz: float) -> None:
        self.codebooks_KCM = codebooks_KCM
        self.sample_rate = sample_rate
        self.frame_rate_hz = frame_rate_hz
        self._exact_KCM = codebooks_KCM.double()

    @property
    def num_codebooks(self) -> int:
        """Codes per frame."""
        return self.codebooks_KCM.shape[0]

    @property
    def codebook_size(self) -> int:
        """Codes of one codebook."""
        return self.codebooks_KCM.shape[1]

    @staticmethod
    def features_of(config: ResidualKMeans, wave_N: np.ndarray) -> np.ndarray:
        """The frames (T, 80) float32 that a tokenizer of `config` is fitted on."""
        return log_mel(wave_N, config.sample_rate, config.frame_rate_hz).astype(np.float32)

    @classmethod
    def fit(cls, config: ResidualKMeans, features_ND: np.ndarray, seed: int) -> "ResidualKMeansTokenizer":
        """Fit codebook after codebook on frames (N, 80)."""
        residual_NM = torch.from_numpy(np.array(features_ND, dtype=np.float32))
        codebooks = []
        for layer in range(config.num_codebooks):
            centroids_CM = fit_kmeans(residual_NM, config.codebook_size, config.iterations, seed + layer)
            residual_NM = residual_NM - centroids_CM[assign(residual_NM, centroids_CM)[0]]
            codebooks.append(centroids_CM)
        return cls(torch.stack(codebooks), config.sample_rate, config.frame_rate_hz)

    def features(self, wave_N: np.ndarray) -> np.ndarray:
        """The frames (T, 80) that are quantised."""
        return log_mel(wave_N, self.sample_rate, self.frame_rate_hz)

    def encode(self, waves: Sequence[np.ndarray], speakers: Sequence[str | None] | None = None) -> list[np.ndarray]:
        """int16 codes (T, K) of each float wave (N,) at `sample_rate`."""
        return [self.quantise(self.features(wave_N)) for wave_N in waves]

    def decode(self, codes_TK: np.ndarray) -> np.ndarray:
        """float32 samples at `sample_rate` of codes (T, K): log-mel, interpolated to 100 Hz, inverted."""
        codes_TK = np.asarray(codes_TK, dtype=np.int64).reshape(-1, self.num_codebooks)
        if not len(codes_TK):
            return np.zeros(0, np.float32)
        mel_TM = sum(self._exact_KCM[k, codes_TK[:, k]] for k in range(self.num_codebooks)).numpy()  # type: ignore[union-attr]
        group = frames_per_code(self.frame_rate_hz)
        centres = (np.arange(len(mel_TM) * group) + 0.5) / group - 0.5
        below = np.clip(np.floor(centres).astype(int), 0, len(mel_TM) - 1)
        above = np.minimum(below + 1, len(mel_TM) - 1)
        share = np.clip(centres - below, 0, 1)[:, None]
        return mel_to_wave(
            mel_TM[below] * (1 - share) + mel_TM[above] * share, self.sample_rate, GRIFFIN_LIM_ITERATIONS
        )

    def quantise(self, features_TM: np.ndarray) -> np.ndarray:
        """int16 codes (T, K) of frames that `features` made."""
        return self._quantise(features_TM)[0]

    def quality(self, features_ND: np.ndarray) -> dict[str, float]:
        """Distortion relative to the variance with all codebooks, use of the codebooks, and bits per second."""
        codes_NK, distances_N = self._quantise(features_ND)
        variance = float(np.square(features_ND - features_ND.mean(0)).sum(1).mean())
        return {
            "relative_distortion": float(distances_N.mean()) / max(variance, 1e-12),
            **code_statistics(codes_NK, self.codebook_size, self.frame_rate_hz),
        }

    def save(self, folder: str) -> None:
        """Write config.json and model.safetensors."""
        write_tokenizer(self, folder, {"codebooks": self.codebooks_KCM.contiguous()})

    @classmethod
    def load(cls, folder: str, config: dict[str, Any]) -> "ResidualKMeansTokenizer":
        """Read what `save` wrote."""
        return cls(read_tensors(folder)["codebooks"], config["sample_rate"], config["frame_rate_hz"])

    def _quantise(self, features_TM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes (T, K) and the squared distance (T,) that the last codebook leaves."""
        parts = [self._quantise_part(part) for part in torch.from_numpy(features_TM).split(_PART_FRAMES)]
        codes_TK, distances_T = (torch.cat(found) for found in zip(*parts, strict=True))
        return codes_TK.numpy().astype(np.int16), distances_T.numpy()

    def _quantise_part(self, features_TM: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        residual_TM = features_TM.double()
        codes = []
        distances_T = residual_TM.square().sum(1)
        for codebook_CM in self._exact_KCM:
            labels_T, distances_T = assign(residual_TM, codebook_CM)
            residual_TM = residual_TM - codebook_CM[labels_T]
            codes.append(labels_T)
        return torch.stack(codes, dim=1), distances_T
