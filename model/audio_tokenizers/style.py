"""Style codes in the manner of SPIRIT LM Expressive (Nguyen et al. 2024, arXiv 2402.05755): one a second.

The paper pools speechprop features (a wav2vec 2.0 trained on expressive speech, which has not been published) over
1 s, normalises them by speaker and makes 100 clusters. Here the features are statistics of the sound itself: how loud,
how high, how varied, how voiced, and the shape of the spectrum. They tell excited from calm, whispered from voiced;
they do not know what a trained model of emotion knows.

Shapes: N = samples, F = analysis frames (100 Hz), T = codes, D = features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from model.audio_tokenizers.base import read_tensors, write_tokenizer
from model.audio_tokenizers.code_quality import code_statistics
from model.audio_tokenizers.features import NUM_MELS, frames_per_code, log_mel
from model.audio_tokenizers.kmeans import assign, fit_kmeans
from model.audio_tokenizers.pitch import log_f0
from model.audio_tokenizers.speakers import SpeakerMeans, present_mean
from model.config import Style

BANDS = 16  # of the spectrum's shape, out of 80 mel bands
SHAPE_WEIGHT = 0.5  # the bands together weigh as much as a quarter of their number in other features
MIN_SECONDS = 5  # of a speaker whose mean is kept


class StyleTokenizer:
    """One codebook over seconds. An unknown speaker is taken for the mean of all."""

    kind = "style"
    num_codebooks = 1

    def __init__(
        self, centroids_KD: torch.Tensor, deviations_D: np.ndarray, config: Style, speakers: SpeakerMeans
    ) -> None:
        self.config = config
        self.sample_rate = config.sample_rate
        self.frame_rate_hz = config.frame_rate_hz
        self.codebook_size = config.codebook_size
        self.centroids_KD = centroids_KD
        self.deviations_D = deviations_D
        self.speakers = speakers
        self._exact_KD = centroids_KD.double()

    @staticmethod
    def features_of(config: Style, wave_N: np.ndarray) -> np.ndarray:
        """Statistics (T, D) of every code's span; NaN where F0 has none because nothing is voiced."""
        group = frames_per_code(config.frame_rate_hz)
        bands_FB = log_mel(wave_N, config.sample_rate).reshape(-1, BANDS, NUM_MELS // BANDS).mean(2)
        # The spectrum has as many frames as the clip lasts, the contour as its codes span: cut or repeat the last.
        pitch_F = log_f0(wave_N, config.sample_rate, config.frame_rate_hz)
        bands_FB = bands_FB[np.minimum(np.arange(pitch_F.size), len(bands_FB) - 1)] if pitch_F.size else bands_FB[:0]
        rows = [
            _statistics(bands_FB[at : at + group], pitch_F[at : at + group]) for at in range(0, len(bands_FB), group)
        ]
        return np.array(rows).reshape(len(rows), BANDS + 5)

    @classmethod
    def fit_utterances(
        cls, config: Style, features: Sequence[np.ndarray], speakers: Sequence[str | None], seed: int
    ) -> "StyleTokenizer":
        """Fit on seconds of whole utterances, and on what is usual for their speakers."""
        means = SpeakerMeans.fit(features, speakers, MIN_SECONDS)
        centred_ND = np.concatenate([f - _mean(means, who) for f, who in zip(features, speakers, strict=True)])
        deviations_D = np.sqrt(present_mean(np.square(centred_ND)))
        deviations_D = np.where(deviations_D > 0, deviations_D, 1.0)
        points_ND = torch.from_numpy(_scaled(centred_ND, deviations_D).astype(np.float32))
        centroids_KD = fit_kmeans(points_ND, config.codebook_size, config.iterations, seed)
        return cls(centroids_KD, deviations_D, config, means)

    def encode(self, waves: Sequence[np.ndarray], speakers: Sequence[str | None] | None = None) -> list[np.ndarray]:
        """int16 codes (T, 1) of each float wave (N,) at `sample_rate`."""
        who = speakers or [None] * len(waves)
        features = [self.features_of(self.config, wave_N) for wave_N in waves]
        return [self.quantise(features_TD, speaker) for features_TD, speaker in zip(features, who, strict=True)]

    def quantise(self, features_TD: np.ndarray, speaker: str | None = None) -> np.ndarray:
        """int16 codes (T, 1) of features that `features_of` made."""
        return assign(self._points(features_TD, speaker), self._exact_KD)[0].numpy().astype(np.int16)[:, None]

    def quality_of_utterances(self, features: Sequence[np.ndarray], speakers: Sequence[str | None]) -> dict[str, float]:
        """Distortion relative to the variance, and what `code_statistics` says."""
        points_ND = torch.cat([self._points(f, who) for f, who in zip(features, speakers, strict=True)])
        labels_N, distances_N = assign(points_ND, self._exact_KD)
        variance = float((points_ND - points_ND.mean(0)).square().sum(1).mean())
        return {
            "relative_distortion": float(distances_N.mean()) / max(variance, 1e-12),
            **code_statistics(labels_N.numpy()[:, None], self.codebook_size, self.frame_rate_hz),
        }

    def save(self, folder: str) -> None:
        """Write config.json and model.safetensors."""
        names, means_SD = self.speakers.to_arrays()
        tensors = {
            "centroids": self.centroids_KD.contiguous(),
            "deviations": torch.from_numpy(self.deviations_D),
            "speaker_means": torch.from_numpy(means_SD),
        }
        write_tokenizer(self, folder, tensors, **self.config.model_dump(), speakers=names)

    @classmethod
    def load(cls, folder: str, config: dict[str, Any]) -> "StyleTokenizer":
        """Read what `save` wrote."""
        settings = Style(**{name: config[name] for name in Style.model_fields})
        tensors = read_tensors(folder)
        speakers = SpeakerMeans.from_arrays(config["speakers"], tensors["speaker_means"].numpy())
        return cls(tensors["centroids"], tensors["deviations"].numpy(), settings, speakers)

    def _points(self, features_TD: np.ndarray, speaker: str | None) -> torch.Tensor:
        centred_TD = features_TD - _mean(self.speakers, speaker)
        return torch.from_numpy(_scaled(centred_TD, self.deviations_D))


def _statistics(bands_FB: np.ndarray, pitch_F: np.ndarray) -> np.ndarray:
    """Level and its spread, F0 and its spread, share of voiced frames, and the spectrum's shape without the level."""
    voiced_F = pitch_F[np.isfinite(pitch_F)]
    level_F = bands_FB.mean(1)
    pitch = (voiced_F.mean(), voiced_F.std()) if voiced_F.size else (np.nan, np.nan)
    shape_B = bands_FB.mean(0) - level_F.mean()
    return np.concatenate([[level_F.mean(), level_F.std(), *pitch, voiced_F.size / max(1, pitch_F.size)], shape_B])


def _scaled(centred_ND: np.ndarray, deviations_D: np.ndarray) -> np.ndarray:
    """In deviations, 0 where a value is missing; the bands weigh less, there are so many of them."""
    scaled_ND = np.nan_to_num(centred_ND / deviations_D)
    scaled_ND[:, -BANDS:] *= SHAPE_WEIGHT
    return scaled_ND


def _mean(speakers: SpeakerMeans, speaker: str | None) -> np.ndarray:
    mean_D = speakers.of(speaker)
    return speakers.everyone_D if mean_D is None else mean_D
