"""Pitch codes of SPIRIT LM Expressive (Nguyen et al. 2024, arXiv 2402.05755): a VQ-VAE over normalised F0.

64 codes at 12.5 Hz by default. Where this differs from the paper: F0 by YIN instead of FCPE or pyaapt; log-F0 less the
speaker's mean; the network learns voicing beside the contour instead of zeros in it.

Shapes: N = samples, F = frames at 100 Hz, T = codes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from model.audio_tokenizers.base import read_tensors, write_tokenizer
from model.audio_tokenizers.code_quality import code_statistics
from model.audio_tokenizers.contour_vae import ContourVAE, Training, fit_contour_vae
from model.audio_tokenizers.features import frames_per_code
from model.audio_tokenizers.pitch import log_f0
from model.audio_tokenizers.speakers import SpeakerMeans, present_mean
from model.config import PitchVQ
from model.determinism import one_thread

SEMITONES = 12 / np.log(2)  # of a difference in log-F0


class PitchVQTokenizer:
    """One codebook over the pitch contour. Unvoiced sound, and silence, has codes like any other."""

    kind = "pitch_vq"
    num_codebooks = 1

    def __init__(self, vae: ContourVAE, config: PitchVQ, speakers: SpeakerMeans, deviation: float) -> None:
        self.config = config
        self.sample_rate = config.sample_rate
        self.frame_rate_hz = config.frame_rate_hz
        self.codebook_size = config.codebook_size
        self.speakers = speakers
        self.deviation = deviation
        self._vae = vae
        self._exact = ContourVAE(config.codebook_size, vae.frames_per_code, config.channels).double().eval()
        self._exact.load_state_dict(vae.state_dict())

    @staticmethod
    def features_of(config: PitchVQ, wave_N: np.ndarray) -> np.ndarray:
        """The contour (F, 1): log-F0, NaN where unvoiced."""
        return log_f0(wave_N, config.sample_rate, config.frame_rate_hz, config.min_hz, config.max_hz)[:, None]

    @classmethod
    def fit_utterances(
        cls, config: PitchVQ, features: Sequence[np.ndarray], speakers: Sequence[str | None], seed: int
    ) -> "PitchVQTokenizer":
        """Fit on contours of whole utterances, and on what is usual for their speakers."""
        means = SpeakerMeans.fit(features, speakers)
        normal = [_normalised(log_F1, means, who) for log_F1, who in zip(features, speakers, strict=True)]
        deviation = float(np.sqrt(present_mean(np.square(np.concatenate(normal))[:, None])[0])) or 1.0
        training = Training(config.steps, config.batch_size, config.crop_codes, config.lr)
        contours = [_as_input(contour_F, deviation) for contour_F in normal]
        group = frames_per_code(config.frame_rate_hz)
        with one_thread():
            vae = fit_contour_vae(contours, config.codebook_size, group, config.channels, training, seed)
        return cls(vae, config, means, deviation)

    def encode(self, waves: Sequence[np.ndarray], speakers: Sequence[str | None] | None = None) -> list[np.ndarray]:
        """int16 codes (T, 1) of each float wave (N,). The F0 of an unknown speaker is normalised by the wave's own."""
        who = speakers or [None] * len(waves)
        features = [self.features_of(self.config, wave_N) for wave_N in waves]
        return [self.quantise(log_F1, speaker) for log_F1, speaker in zip(features, who, strict=True)]

    def quantise(self, log_F1: np.ndarray, speaker: str | None = None) -> np.ndarray:
        """int16 codes (T, 1) of a contour that `features_of` made."""
        if not len(log_F1):
            return np.zeros((0, 1), np.int16)
        contour_F2 = _as_input(_normalised(log_F1, self.speakers, speaker), self.deviation)
        with torch.no_grad():
            codes_1T = self._exact.quantise(self._exact.encode(torch.from_numpy(contour_F2)[None]))
        return codes_1T[0].numpy().astype(np.int16)[:, None]

    def contour(self, codes_T: np.ndarray, speaker: str | None = None) -> np.ndarray:
        """F0 in Hz (F,) at 100 Hz that the codes stand for, NaN where unvoiced; in the range of `speaker`, or, for an
        unknown one, of the mean of all."""
        normal_F = self._decoded(np.asarray(codes_T).reshape(-1))
        mean = self.speakers.of(speaker)
        return np.exp(normal_F + (self.speakers.everyone_D if mean is None else mean)[0])

    def quality_of_utterances(self, features: Sequence[np.ndarray], speakers: Sequence[str | None]) -> dict[str, float]:
        """How near the codes' contours are to the voices', and what `code_statistics` says."""
        codes = [self.quantise(log_F1, who) for log_F1, who in zip(features, speakers, strict=True)]
        true_F = np.concatenate([_normalised(f, self.speakers, who) for f, who in zip(features, speakers, strict=True)])
        found_F = np.concatenate([self._decoded(codes_T1[:, 0]) for codes_T1 in codes])
        voiced_F, both_F = np.isfinite(true_F), np.isfinite(true_F) & np.isfinite(found_F)
        squared = float(np.square(true_F[both_F] - found_F[both_F]).mean()) if both_F.any() else 0.0
        return {
            "relative_distortion": squared / self.deviation**2,
            "f0_error_semitones": float(SEMITONES * np.sqrt(squared)),
            "voicing_error": float((voiced_F != np.isfinite(found_F)).mean()),
            **code_statistics(np.concatenate(codes), self.codebook_size, self.frame_rate_hz),
        }

    def save(self, folder: str) -> None:
        """Write config.json and model.safetensors."""
        names, means_S1 = self.speakers.to_arrays()
        tensors = {name: tensor.contiguous() for name, tensor in self._vae.state_dict().items()}
        tensors["speaker_means"] = torch.from_numpy(means_S1)
        write_tokenizer(self, folder, tensors, **self.config.model_dump(), deviation=self.deviation, speakers=names)

    @classmethod
    def load(cls, folder: str, config: dict[str, Any]) -> "PitchVQTokenizer":
        """Read what `save` wrote."""
        settings = PitchVQ(**{name: config[name] for name in PitchVQ.model_fields})
        tensors = read_tensors(folder)
        speakers = SpeakerMeans.from_arrays(config["speakers"], tensors.pop("speaker_means").numpy())
        vae = ContourVAE(settings.codebook_size, frames_per_code(settings.frame_rate_hz), settings.channels)
        vae.load_state_dict(tensors)
        return cls(vae.eval(), settings, speakers, config["deviation"])

    def _decoded(self, codes_T: np.ndarray) -> np.ndarray:
        """Normalised log-F0 (F,), NaN where unvoiced."""
        if not codes_T.size:
            return np.zeros(0)
        latents_TD = self._exact.codebook_KD[torch.from_numpy(codes_T.astype(np.int64))]
        with torch.no_grad():
            values_1F, voicing_1F = self._exact.decode(latents_TD[None])
        return np.where(voicing_1F[0].numpy() > 0, values_1F[0].numpy() * self.deviation, np.nan)


def _normalised(log_F1: np.ndarray, speakers: SpeakerMeans, speaker: str | None) -> np.ndarray:
    """Log-F0 (F,) less the speaker's mean, or the utterance's own."""
    mean = speakers.of(speaker)
    return (log_F1 - (present_mean(log_F1) if mean is None else mean))[:, 0]


def _as_input(contour_F: np.ndarray, deviation: float) -> np.ndarray:
    """(F, 2): the contour in deviations, 0 where unvoiced, and whether it is voiced."""
    return np.stack([np.nan_to_num(contour_F / deviation), np.isfinite(contour_F).astype(np.float64)], axis=1)
