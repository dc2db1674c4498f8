"""A small contrastive language-audio model (CLAP, Elizalde et al. 2023): clips and captions on one sphere.

Shapes: B = clips or captions, T = frames (25 Hz), M = mel bands, L = words, C = channels, E = embedding.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn.functional import cross_entropy, normalize, pad

from data import storage
from data.audio import resample
from data.errors import InputError
from model.audio_tokenizers.features import MEL_FLOOR, NUM_MELS, log_mel

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
SAMPLE_RATE, FRAME_RATE_HZ = 16000, 50.0
CHANNELS, EMBEDDING = 96, 128
MIN_FRAMES = 8
_UNKNOWN = "<unknown>"


class Clap(nn.Module):
    """Convolutions and a recurrent net over mel frames, embeddings and a recurrent net over words."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__()
        self.words = (_UNKNOWN, *words)
        self._ids = {word: index for index, word in enumerate(self.words)}
        widths = [NUM_MELS, CHANNELS, CHANNELS, CHANNELS]
        self.convolutions = nn.ModuleList(nn.Conv1d(a, b, 5, padding=2) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, CHANNELS) for _ in self.convolutions)
        self.audio_rnn = nn.GRU(CHANNELS, CHANNELS, batch_first=True, bidirectional=True)
        self.audio_head = nn.Linear(4 * CHANNELS, EMBEDDING)
        self.word_embedding = nn.Embedding(len(self.words), CHANNELS)
        self.text_rnn = nn.GRU(CHANNELS, CHANNELS, batch_first=True, bidirectional=True)
        self.text_head = nn.Linear(2 * CHANNELS, EMBEDDING)
        self.log_scale = nn.Parameter(torch.tensor(np.log(10.0), dtype=torch.float32))

    def frames(self, wave_N: np.ndarray, sample_rate: int) -> torch.Tensor:
        """Log-mel frames (T, M), about unit variance, of a mono float wave. Raises ValueError for an empty one."""
        if not np.size(wave_N):
            raise ValueError("an empty wave has no embedding")
        samples = resample(np.asarray(wave_N, np.float32), sample_rate, SAMPLE_RATE)
        mel_TM = torch.from_numpy(log_mel(samples, SAMPLE_RATE, FRAME_RATE_HZ).astype(np.float32))
        short = MIN_FRAMES - len(mel_TM)
        floor = float(np.log(MEL_FLOOR))
        return (pad(mel_TM, (0, 0, 0, max(short, 0)), value=floor) + 6.0) / 2.0

    def embed_audio(self, frames: Sequence[torch.Tensor]) -> torch.Tensor:
        """Unit vectors (B, E). Clips of one length are computed together; none is padded for another's sake."""
        if len({len(item) for item in frames}) > 1:
            return torch.cat([self.embed_audio([item]) for item in frames])
        hidden_BCT = torch.stack(list(frames)).transpose(1, 2)
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            hidden_BCT = norm(torch.relu(convolution(hidden_BCT)))
            if index < 1:
                hidden_BCT = nn.functional.max_pool1d(hidden_BCT, 2)
        states_BTC, _ = self.audio_rnn(hidden_BCT.transpose(1, 2))
        pooled_BC = torch.cat([states_BTC.mean(1), states_BTC.amax(1)], dim=1)
        return normalize(self.audio_head(pooled_BC), dim=1)

    def embed_text(self, captions: Sequence[str]) -> torch.Tensor:
        """Unit vectors (B, E). Words that training never saw share one embedding."""
        ids = [[self._ids.get(word, 0) for word in caption.lower().split()] or [0] for caption in captions]
        if len({len(item) for item in ids}) > 1:
            return torch.cat([self.embed_text([caption]) for caption in captions])
        _, last_2BC = self.text_rnn(self.word_embedding(torch.tensor(ids)))
        return normalize(self.text_head(torch.cat([last_2BC[0], last_2BC[1]], dim=1)), dim=1)

    def loss(self, frames: Sequence[torch.Tensor], captions: Sequence[str]) -> torch.Tensor:
        """Symmetric InfoNCE; clips whose captions are equal all count as right."""
        scale = self.log_scale.clamp(max=float(np.log(50.0))).exp()
        logits_BB = scale * self.embed_audio(frames) @ self.embed_text(captions).T
        same_BB = torch.tensor([[float(a == b) for b in captions] for a in captions])
        target_BB = same_BB / same_BB.sum(1, keepdim=True)
        return (cross_entropy(logits_BB, target_BB) + cross_entropy(logits_BB.T, target_BB)) / 2


def save_clap(model: Clap, folder: str) -> None:
    """Write config.json and model.safetensors."""
    storage.write_json(storage.join(folder, CONFIG_NAME), {"kind": "clap", "words": list(model.words[1:])})
    storage.write_bytes(storage.join(folder, WEIGHTS_NAME), save(dict(model.state_dict())))


def load_clap(folder: str) -> Clap:
    """The model that `save_clap` wrote. Raises InputError where there is none."""
    path = storage.join(folder, CONFIG_NAME)
    if not storage.exists(path):
        raise InputError(f"{folder!r} holds no {CONFIG_NAME}: give the clap/ folder that fit_judges writes")
    model = Clap(storage.read_json(path)["words"])
    model.load_state_dict(load(storage.read_bytes(storage.join(folder, WEIGHTS_NAME))))
    return model.eval()
