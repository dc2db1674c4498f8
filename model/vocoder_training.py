"""Trains the unit vocoder on aligned codes and log-mel frames.

Shapes: B = clips, T = units, F = mel frames (100 Hz), M = mel bands.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from data.errors import InputError
from model.config import VocoderConfig
from model.determinism import one_thread
from model.vocoders.unit_mel import UnitMelNetwork, UnitMelShape, UnitMelVocoder

log = logging.getLogger("antiphon")

MAX_GRAD_NORM = 1.0
DELTA_WEIGHT = 0.5  # of the loss on steps in time, which keeps onsets sharp
LOG_EVERY = 200


@dataclass(frozen=True)
class Example:
    """One utterance: codes (T,) and their log-mel frames (F, M), F = T * frames per code."""

    codes_T: np.ndarray
    mel_FM: np.ndarray
    voice: str


def fit_unit_mel(
    examples: Sequence[Example],
    config: VocoderConfig,
    seed: int,
    stream: str,
    frame_rate_hz: float,
    codebook_size: int,
) -> tuple[UnitMelVocoder, dict[str, float]]:
    """A vocoder for the voices of `examples`, and its training losses. Depends on the arguments alone.

    Raises InputError without a single example.
    """
    if not any(example.codes_T.size for example in examples):
        raise InputError("the vocoder has nothing to learn from: no training utterance has codes and audio")
    voices = tuple(sorted({example.voice for example in examples}))
    shape = UnitMelShape(
        stream=stream,
        frame_rate_hz=frame_rate_hz,
        codebook_size=codebook_size,
        sample_rate=config.sample_rate,
        voices=voices,
        channels=config.channels,
        griffin_lim_iterations=config.griffin_lim_iterations,
    )
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UnitMelNetwork(shape)
        crops = Crops(examples, voices, config, network.frames_per_code, seed)
        network.mean_M.copy_(crops.mean_M)
        network.deviation_M.copy_(crops.deviation_M)
        losses = _train(network, crops, config)
    return UnitMelVocoder(network, shape), losses


class Crops:
    """Random crops of the utterances, longer ones drawn more often; what a short one lacks is masked."""

    def __init__(
        self, examples: Sequence[Example], voices: tuple[str, ...], config: VocoderConfig, ratio: int, seed: int
    ) -> None:
        self.examples = [example for example in examples if example.codes_T.size]
        self.voices = voices
        self.length, self.ratio, self.batch = config.crop_codes, ratio, config.batch_size
        self.rng = np.random.default_rng(seed)
        counts = np.array([example.codes_T.size for example in self.examples], dtype=np.float64)
        self.chances = counts / counts.sum()
        frames_FM = np.concatenate([example.mel_FM for example in self.examples])
        self.mean_M = torch.from_numpy(frames_FM.mean(axis=0, dtype=np.float64).astype(np.float32))
        self.deviation_M = torch.from_numpy(frames_FM.std(axis=0, dtype=np.float64).clip(0.1).astype(np.float32))

    def draw(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """codes (B, T), voices (B,), normalised frames (B, F, M), mask (B, F, 1)."""
        codes_BT = np.zeros((self.batch, self.length), np.int64)
        mel_BFM = np.zeros((self.batch, self.length * self.ratio, self.mean_M.numel()), np.float32)
        mask_BF1 = np.zeros((self.batch, self.length * self.ratio, 1), np.float32)
        chosen = self.rng.choice(len(self.examples), size=self.batch, p=self.chances)
        for row, index in enumerate(chosen):
            example = self.examples[index]
            start = int(self.rng.integers(max(example.codes_T.size - self.length, 0) + 1))
            codes_T = example.codes_T[start : start + self.length]
            frames = slice(start * self.ratio, (start + codes_T.size) * self.ratio)
            codes_BT[row, : codes_T.size] = codes_T
            mel_BFM[row, : codes_T.size * self.ratio] = example.mel_FM[frames]
            mask_BF1[row, : codes_T.size * self.ratio] = 1.0
        voice_B = torch.tensor([self.voices.index(self.examples[index].voice) for index in chosen])
        normalised_BFM = (torch.from_numpy(mel_BFM) - self.mean_M) / self.deviation_M
        return torch.from_numpy(codes_BT), voice_B, normalised_BFM, torch.from_numpy(mask_BF1)


def _train(network: UnitMelNetwork, crops: Crops, config: VocoderConfig) -> dict[str, float]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps + 1, pct_start=0.1)
    network.train()
    recent: list[float] = []
    for step in range(1, config.steps + 1):
        codes_BT, voice_B, mel_BFM, mask_BF1 = crops.draw()
        predicted_BFM = network(codes_BT, voice_B, mask_BF1[:, :: crops.ratio])
        loss = spectral_loss(predicted_BFM, mel_BFM, mask_BF1)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % LOG_EVERY == 0:
            log.info("vocoder: step %d/%d, loss %.4f", step, config.steps, float(np.mean(recent[-LOG_EVERY:])))
    return {"loss_first": float(np.mean(recent[:LOG_EVERY])), "loss_last": float(np.mean(recent[-LOG_EVERY:]))}


def spectral_loss(predicted_BFM: torch.Tensor, mel_BFM: torch.Tensor, mask_BF1: torch.Tensor) -> torch.Tensor:
    """Mean distance (L1) of the frames, and of their steps in time, over what the mask keeps."""
    error_BFM = (predicted_BFM - mel_BFM) * mask_BF1
    steps_BFM = (error_BFM[:, 1:] - error_BFM[:, :-1]) * mask_BF1[:, 1:]
    total = mask_BF1.sum().clamp_min(1.0) * mel_BFM.shape[-1]
    return (error_BFM.abs().sum() + DELTA_WEIGHT * steps_BFM.abs().sum()) / total
