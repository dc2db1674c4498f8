"""A small VQ-VAE over pitch contours: van den Oord et al. 2017 (arXiv 1711.00937), its codebook a moving average.

As the pitch quantiser of Polyak et al. 2021 (arXiv 2104.00355) it compresses F0 in time and quantises what is left.
The codebook starts at k-means of the encoder's outputs, and codes that fall out of use move to outputs of the current
batch (Dhariwal et al. 2020).

Shapes: B = crops, F = frames of the contour, T = codes, G = frames per code (F = T G), D = latents, K = codes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from model.audio_tokenizers.kmeans import assign, fit_kmeans

LATENTS = 16
COMMITMENT = 0.25
DECAY = 0.98
RESET_EVERY = 20
DEAD_SHARE = 0.05  # of the use that every code would have were all used alike
_KMEANS_ITERATIONS = 10
_KMEANS_BATCHES = 8
_VOICING_WEIGHT = 0.5


@dataclass(frozen=True)
class Training:
    """How a ContourVAE is trained."""

    steps: int
    batch_size: int
    crop_codes: int
    lr: float


class ContourVAE(nn.Module):
    """Contours (B, F, 2), value and voicing, to codes and back."""

    codebook_KD: torch.Tensor

    def __init__(self, codebook_size: int, frames_per_code: int, channels: int) -> None:
        super().__init__()
        self.frames_per_code = frames_per_code
        self.enter = nn.Conv1d(2, channels, 5, padding=2)
        self.squeeze = nn.Conv1d(channels, channels, frames_per_code, stride=frames_per_code)
        self.look = nn.Conv1d(channels, channels, 3, padding=1)
        self.to_latent = nn.Conv1d(channels, LATENTS, 1)
        self.from_latent = nn.Conv1d(LATENTS, channels, 3, padding=1)
        self.stretch = nn.ConvTranspose1d(channels, channels, frames_per_code, stride=frames_per_code)
        self.smooth = nn.Conv1d(channels, channels, 5, padding=2)
        self.leave = nn.Conv1d(channels, 2, 5, padding=2)
        self.register_buffer("codebook_KD", torch.zeros(codebook_size, LATENTS))

    def encode(self, contours_BF2: torch.Tensor) -> torch.Tensor:
        """Latents (B, T, D)."""
        hidden = nn.functional.gelu(self.enter(contours_BF2.transpose(1, 2)))
        hidden = nn.functional.gelu(self.squeeze(hidden))
        hidden = hidden + nn.functional.gelu(self.look(hidden))
        return self.to_latent(hidden).transpose(1, 2)

    def quantise(self, latents_BTD: torch.Tensor) -> torch.Tensor:
        """The nearest codes (B, T)."""
        labels, _ = assign(latents_BTD.reshape(-1, LATENTS), self.codebook_KD)
        return labels.view(latents_BTD.shape[:2])

    def decode(self, latents_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (B, F) and voicing logits (B, F)."""
        hidden = nn.functional.gelu(self.from_latent(latents_BTD.transpose(1, 2)))
        hidden = nn.functional.gelu(self.stretch(hidden))
        hidden = hidden + nn.functional.gelu(self.smooth(hidden))
        both_B2F = self.leave(hidden)
        return both_B2F[:, 0], both_B2F[:, 1]


def fit_contour_vae(
    contours: list[np.ndarray], codebook_size: int, frames_per_code: int, channels: int, training: Training, seed: int
) -> ContourVAE:
    """Trained on contours (F, 2) of value and voicing, F a multiple of `frames_per_code`. The same seed, the same bits
    on one thread: see model/determinism.py."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = ContourVAE(codebook_size, frames_per_code, channels)
        crops = _Crops(contours, frames_per_code, training, seed)
        _start_codebook(vae, crops, seed)
        counts_K = torch.ones(codebook_size)
        sums_KD = vae.codebook_KD.clone()
        optimizer = torch.optim.Adam(vae.parameters(), lr=training.lr)
        for step in range(1, training.steps + 1):
            contours_BF2, mask_BF = crops.draw()
            latents_BTD = vae.encode(contours_BF2)
            codes_BT = vae.quantise(latents_BTD.detach())
            loss = _loss(vae, contours_BF2, mask_BF, latents_BTD, codes_BT)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            heard_BT = mask_BF[:, ::frames_per_code] > 0
            _move(vae, latents_BTD.detach()[heard_BT], codes_BT[heard_BT], counts_K, sums_KD)
            if step % RESET_EVERY == 0 and step < training.steps:
                _revive(vae, latents_BTD.detach()[heard_BT], counts_K, sums_KD)
    return vae.eval()


class _Crops:
    """Random crops, longer contours drawn more often; what a short one lacks is masked."""

    def __init__(self, contours: list[np.ndarray], frames_per_code: int, training: Training, seed: int) -> None:
        self.contours = [contour_F2 for contour_F2 in contours if len(contour_F2)]
        self.group, self.training = frames_per_code, training
        self.rng = np.random.default_rng(seed)
        lengths = np.array([len(contour_F2) for contour_F2 in self.contours], dtype=np.float64)
        self.chances = lengths / lengths.sum()

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Contours (B, F, 2) and 1 where there is one (B, F)."""
        frames = self.training.crop_codes * self.group
        contours_BF2 = np.zeros((self.training.batch_size, frames, 2), np.float32)
        mask_BF = np.zeros((self.training.batch_size, frames), np.float32)
        for row, index in enumerate(self.rng.choice(len(self.contours), self.training.batch_size, p=self.chances)):
            whole_F2 = self.contours[index]
            start = self.group * int(self.rng.integers(max(0, len(whole_F2) - frames) // self.group + 1))
            crop_F2 = whole_F2[start : start + frames]
            contours_BF2[row, : len(crop_F2)], mask_BF[row, : len(crop_F2)] = crop_F2, 1
        return torch.from_numpy(contours_BF2), torch.from_numpy(mask_BF)


def _start_codebook(vae: ContourVAE, crops: _Crops, seed: int) -> None:
    with torch.no_grad():
        drawn = [crops.draw() for _ in range(_KMEANS_BATCHES)]
        latents = [vae.encode(contours)[mask[:, :: vae.frames_per_code] > 0] for contours, mask in drawn]
        vae.codebook_KD.copy_(fit_kmeans(torch.cat(latents), len(vae.codebook_KD), _KMEANS_ITERATIONS, seed))


def _loss(
    vae: ContourVAE,
    contours_BF2: torch.Tensor,
    mask_BF: torch.Tensor,
    latents_BTD: torch.Tensor,
    codes_BT: torch.Tensor,
) -> torch.Tensor:
    """Error of the values where voiced, of the voicing, and the commitment of the encoder to its codes."""
    chosen_BTD = vae.codebook_KD[codes_BT]
    straight_BTD = latents_BTD + (chosen_BTD - latents_BTD).detach()  # gradients pass the quantiser by
    values_BF, voicing_BF = vae.decode(straight_BTD)
    voiced_BF = contours_BF2[..., 1]
    error = ((values_BF - contours_BF2[..., 0]).square() * voiced_BF).sum() / voiced_BF.sum().clamp_min(1)
    entropy_BF = nn.functional.binary_cross_entropy_with_logits(voicing_BF, voiced_BF, reduction="none")
    voicing = (entropy_BF * mask_BF).sum() / mask_BF.sum()
    heard_BT = mask_BF[:, :: vae.frames_per_code]
    away_BT = (latents_BTD - chosen_BTD).square().mean(-1)
    commitment = (away_BT * heard_BT).sum() / heard_BT.sum()
    return error + _VOICING_WEIGHT * voicing + COMMITMENT * commitment


def _move(
    vae: ContourVAE, latents_ND: torch.Tensor, codes_N: torch.Tensor, counts_K: torch.Tensor, sums_KD: torch.Tensor
) -> None:
    """Every code moves towards the mean of the latents it stands for."""
    size = len(vae.codebook_KD)
    counts_K.mul_(DECAY).add_(torch.bincount(codes_N, minlength=size), alpha=1 - DECAY)
    sums_KD.mul_(DECAY).add_(torch.zeros(size, LATENTS).index_add_(0, codes_N, latents_ND), alpha=1 - DECAY)
    vae.codebook_KD.copy_(sums_KD / counts_K.clamp_min(1e-5)[:, None])


def _revive(vae: ContourVAE, latents_ND: torch.Tensor, counts_K: torch.Tensor, sums_KD: torch.Tensor) -> None:
    """Codes out of use go to latents of this batch."""
    fair = float(counts_K.sum()) / len(counts_K)
    dead = torch.nonzero(counts_K < DEAD_SHARE * fair).flatten()
    if len(dead) and len(latents_ND):
        places_ND = latents_ND[torch.randint(len(latents_ND), (len(dead),))]
        vae.codebook_KD[dead] = places_ND
        counts_K[dead] = fair
        sums_KD[dead] = places_ND * fair
