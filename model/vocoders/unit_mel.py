"""Units and a speaker to log-mel frames by convolutions, then to sound by mel inversion.

Two rates: convolutions over units gather what surrounds a unit, then convolutions at 100 Hz draw the frames.
Shapes: B = clips, T = units, F = mel frames (100 Hz), M = mel bands, C = channels, N = samples.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn

from data import storage
from data.durations import expand
from data.errors import InputError
from data.timing import seconds_to_samples
from model.audio_tokenizers.compression import FOLDER as COMPRESSION
from model.audio_tokenizers.compression import Compression, load_compression
from model.audio_tokenizers.features import NUM_MELS, frames_per_code, hop_samples
from model.mel_inversion import mel_to_wave
from model.vocoders.base import CONFIG_NAME, DURATIONS, FORMAT_VERSION, WEIGHTS_NAME, Streams

UNIT_LAYERS, FRAME_LAYERS = 3, 3
UNIT_KERNEL, FRAME_KERNEL = 5, 5
CONTEXT_UNITS = 16  # at least what one frame sees to its left
CROSSFADE_S = 0.01


@dataclass(frozen=True)
class UnitMelShape:
    """What a network of this kind is made of."""

    stream: str
    frame_rate_hz: float
    codebook_size: int
    sample_rate: int
    voices: tuple[str, ...]
    channels: int
    griffin_lim_iterations: int


class UnitMelNetwork(nn.Module):
    """Codes (B, T) and speakers (B,) to log-mel frames (B, F, M), F = T * frames per code."""

    mean_M: torch.Tensor
    deviation_M: torch.Tensor

    def __init__(self, shape: UnitMelShape) -> None:
        super().__init__()
        channels = shape.channels
        self.frames_per_code = frames_per_code(shape.frame_rate_hz)
        self.unit_embedding = nn.Embedding(shape.codebook_size, channels)
        self.voice_embedding = nn.Embedding(len(shape.voices), channels)
        self.unit_blocks = nn.ModuleList(Block(channels, UNIT_KERNEL) for _ in range(UNIT_LAYERS))
        self.upsample = nn.Linear(channels, channels * self.frames_per_code)
        self.frame_blocks = nn.ModuleList(Block(channels, FRAME_KERNEL) for _ in range(FRAME_LAYERS))
        self.head = nn.Linear(channels, NUM_MELS)
        self.register_buffer("mean_M", torch.zeros(NUM_MELS))
        self.register_buffer("deviation_M", torch.ones(NUM_MELS))

    def forward(
        self, codes_BT: torch.Tensor, voice_B: torch.Tensor, mask_BT1: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalised log-mel frames (B, F, M). Where `mask_BT1` is 0 it is as if the clip had ended."""
        batch, length = codes_BT.shape
        if mask_BT1 is None:
            mask_BT1 = torch.ones(batch, length, 1)
        mask_BF1 = mask_BT1.repeat_interleave(self.frames_per_code, dim=1)
        voice_B1C = self.voice_embedding(voice_B)[:, None]
        hidden_BTC = self.unit_embedding(codes_BT)
        for block in self.unit_blocks:
            hidden_BTC = block(hidden_BTC, voice_B1C, mask_BT1)
        hidden_BFC = self.upsample(hidden_BTC).view(batch, length * self.frames_per_code, -1)
        for block in self.frame_blocks:
            hidden_BFC = block(hidden_BFC, voice_B1C, mask_BF1)
        return self.head(hidden_BFC)

    def log_mel(self, codes_BT: torch.Tensor, voice_B: torch.Tensor) -> torch.Tensor:
        """Log-mel frames (B, F, M) as `features.log_mel` has them."""
        return self(codes_BT, voice_B) * self.deviation_M + self.mean_M


class Block(nn.Module):
    """A residual convolution that hears the speaker."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.voice = nn.Linear(channels, channels)
        self.convolution = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.mix = nn.Linear(channels, channels)

    def forward(self, hidden_BTC: torch.Tensor, voice_B1C: torch.Tensor, mask_BT1: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        inner_BTC = (self.norm(hidden_BTC) + self.voice(voice_B1C)) * mask_BT1
        inner_BTC = self.convolution(inner_BTC.transpose(1, 2)).transpose(1, 2)
        return hidden_BTC + self.mix(nn.functional.gelu(inner_BTC))


class UnitMelVocoder:
    """A `Vocoder` of one stream with one codebook, for a fixed set of voices."""

    kind = "unit_mel"

    def __init__(self, network: UnitMelNetwork, shape: UnitMelShape, compression: Compression | None = None) -> None:
        """`compression` is that of the codes that come in; the network itself knows frames alone."""
        self.network = network.eval()
        self.shape = shape
        self.compression = compression

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one stream."""
        return (self.shape.stream,)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.shape.sample_rate

    @property
    def voices(self) -> tuple[str, ...]:
        """The voices it was trained on."""
        return self.shape.voices

    @property
    def samples_per_code(self) -> int:
        """How much sound one code stands for."""
        return self.network.frames_per_code * hop_samples(self.shape.sample_rate)

    def synthesize(self, streams: Streams, voice: str | None = None) -> np.ndarray:
        """float32 samples (T * samples_per_code,) of codes (T,) or (T, 1); any length, also a single code.

        Deduplicated codes come with `<stream>_durations`, frames per code. The only voice need not be named.
        Raises InputError for an unknown voice, a missing stream or a code outside the codebook.
        """
        return self._sound(self._codes(streams), self._voice_index(voice))

    def _sound(self, codes_T: np.ndarray, speaker: int) -> np.ndarray:
        if not codes_T.size:
            return np.zeros(0, np.float32)
        with torch.no_grad():
            mel_BFM = self.network.log_mel(torch.from_numpy(codes_T)[None], torch.tensor([speaker]))
        wave_N = mel_to_wave(mel_BFM[0].numpy(), self.sample_rate, self.shape.griffin_lim_iterations)
        return wave_N.astype(np.float32, copy=False)

    def stream(self, chunks: Iterable[Streams], voice: str | None = None) -> Iterator[np.ndarray]:
        """Pieces of sound, each made with the codes before it as context and cross-faded into the last."""
        past_T, speaker = np.zeros(0, np.int64), self._voice_index(voice)
        fade = seconds_to_samples(CROSSFADE_S, self.sample_rate)
        held_N = np.zeros(0, np.float32)
        for chunk in chunks:
            codes_T = self._codes(chunk)
            if not codes_T.size:
                continue
            wave_N = self._sound(np.concatenate([past_T, codes_T]), speaker)
            start = past_T.size * self.samples_per_code - held_N.size
            ramp_N = np.linspace(0.0, 1.0, held_N.size, dtype=np.float32)
            fresh_N = wave_N[start:].copy()
            fresh_N[: held_N.size] = held_N * (1 - ramp_N) + fresh_N[: held_N.size] * ramp_N
            yield fresh_N[:-fade]
            held_N = fresh_N[-fade:]
            past_T = np.concatenate([past_T, codes_T])[-CONTEXT_UNITS:]
        if held_N.size:
            yield held_N

    def save(self, folder: str) -> None:
        """Write config.json and model.safetensors."""
        config = {"kind": self.kind, "version": FORMAT_VERSION, "inputs": list(self.inputs), **asdict(self.shape)}
        storage.write_json(storage.join(folder, CONFIG_NAME), config)
        storage.write_bytes(storage.join(folder, WEIGHTS_NAME), save(dict(self.network.state_dict())))
        if self.compression is not None:
            self.compression.save(storage.join(folder, COMPRESSION))

    @classmethod
    def load(cls, folder: str) -> "UnitMelVocoder":
        """The vocoder that `save` wrote."""
        config = storage.read_json(storage.join(folder, CONFIG_NAME))
        fields = {name: config[name] for name in UnitMelShape.__dataclass_fields__}
        shape = UnitMelShape(**{**fields, "voices": tuple(fields["voices"])})
        network = UnitMelNetwork(shape)
        network.load_state_dict(load(storage.read_bytes(storage.join(folder, WEIGHTS_NAME))))
        return cls(network, shape, load_compression(storage.join(folder, COMPRESSION)))

    def _codes(self, streams: Streams) -> np.ndarray:
        """int64 codes (T,), one per unit frame."""
        stream = self.shape.stream
        if stream not in streams:
            raise InputError(f"this vocoder needs the stream {stream!r}, got {sorted(streams)}")
        codes_L = np.asarray(streams[stream], dtype=np.int64).reshape(-1)
        size = (self.compression or self.shape).codebook_size
        if codes_L.size and not (codes_L.min() >= 0 and codes_L.max() < size):
            raise InputError(
                f"codes of {stream!r} run from {codes_L.min()} to {codes_L.max()}, expected 0 to "
                f"{size - 1}: they come from another tokenizer than this vocoder's"
            )
        durations = streams.get(stream + DURATIONS)
        if self.compression is not None:
            return self.compression.expand(codes_L, durations).astype(np.int64)
        return codes_L if durations is None else expand(codes_L, durations)

    def _voice_index(self, voice: str | None) -> int:
        if voice is None and len(self.voices) == 1:
            return 0
        if voice not in self.voices:
            raise InputError(f"voice {voice!r} is unknown: choose one of {', '.join(self.voices)}")
        return self.voices.index(voice)
