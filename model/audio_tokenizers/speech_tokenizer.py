"""SpeechTokenizer (Zhang et al. 2024, arXiv 2308.16692): eight residual codebooks of which the first carries content.

A SEANet encoder and decoder as in EnCodec (Défossez et al. 2022) around a residual quantiser, at 50 Hz for 16 kHz; the
encoder's LSTM reads both ways. Codebook 0 was trained towards HuBERT's features and is the *semantic* stream (AnyGPT's
speech, USLM), codebooks 1 to 7 are the *acoustic* one. Modules bear the names of the published checkpoint, whose
weights open once converted: `python -m model.convert FOLDER DST` on the folder with config.json and SpeechTokenizer.pt.

Shapes: N = samples, T = frames, C = channels, K = codebooks of the stream, Q = the first codebooks up to the last one
needed, V = codes of a codebook, 1 = batch and channel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn

from data import storage
from data.errors import InputError
from model.audio_tokenizers.base import CONFIG_NAME, WEIGHTS_NAME, write_tokenizer
from model.audio_tokenizers.brought import WEIGHTS_FOLDER, bring_weights, weights_location
from model.audio_tokenizers.codebooks import checked_codebooks, checked_codes
from model.audio_tokenizers.finite_reach import in_pieces, reach_of
from model.audio_tokenizers.weight_norm import fold_weight_norm
from model.config import SpeechTokenizerUnits

PIECE_S, PIECE_FRAMES = 10.0, 2000
OUTER_KERNEL = 7  # of the first and last convolution; the published config.json leaves it out
# In the checkpoint and of use to training alone: the way to HuBERT's width, and the running sums of the codebooks.
_OF_TRAINING = ("transform.", ".inited", ".cluster_size", ".embed_avg")


@dataclass(frozen=True)
class Shape:
    """What the published config.json says of the model; its fields about training are left out."""

    n_filters: int
    strides: tuple[int, ...]
    dimension: int
    bidirectional: bool
    dilation_base: int
    residual_kernel_size: int
    n_residual_layers: int
    lstm_layers: int
    activation: str
    codebook_size: int
    n_q: int
    sample_rate: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Shape":
        """Raises InputError for a config.json that lacks fields or names an activation that is not known."""
        absent = [field.name for field in fields(cls) if field.name not in config]
        if absent:
            raise InputError(f"config.json lacks {', '.join(absent)}: give the folder of a SpeechTokenizer")
        if config["activation"] not in ("ELU", "Snake"):
            raise InputError(f"activation is {config['activation']!r}, expected 'ELU' or 'Snake'")
        values = {field.name: config[field.name] for field in fields(cls)}
        return cls(**values | {"strides": tuple(config["strides"])})


class SpeechTokenizerModel(nn.Module):
    """The network; encoder, decoder and quantiser one recording at a time."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = nn.ModuleDict({"model": nn.Sequential(*_encoder_layers(shape))})
        self.decoder = nn.ModuleDict({"model": nn.Sequential(*_decoder_layers(shape))})
        codebooks = nn.ModuleList(_Quantiser(shape.codebook_size, shape.dimension) for _ in range(shape.n_q))
        self.quantizer = nn.ModuleDict({"vq": nn.ModuleDict({"layers": codebooks})})

    @property
    def codebooks(self) -> list[torch.Tensor]:
        """The centroids (V, C) of every codebook."""
        return [buffer for name, buffer in self.named_buffers() if name.endswith("._codebook.embed")]

    def latents(self, wave_11N: torch.Tensor) -> torch.Tensor:
        """What is quantised (T, C), T = N / hop rounded up. The layers before the LSTM run in pieces, as if in one."""
        layers = list(self.encoder["model"].children())
        recurrent = next((i for i, layer in enumerate(layers) if isinstance(layer, _Lstm)), len(layers))
        front, back = nn.Sequential(*layers[:recurrent]), nn.Sequential(*layers[recurrent:])
        piece = round(PIECE_S * self.shape.sample_rate)
        hop_samples = int(np.prod(self.shape.strides))
        return back(in_pieces(front, wave_11N, hop_samples, reach_of(front), piece))[0].T

    def quantise(self, latents_TC: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        """Codes (T, Q): each codebook's nearest centroid of what those before it left over."""
        codes, rest_TC = [], latents_TC
        for centroids_VC in self.codebooks[:num_codebooks]:
            scores_TV = 2 * rest_TC @ centroids_VC.T - centroids_VC.square().sum(1)
            codes.append(scores_TV.argmax(1))
            rest_TC = rest_TC - centroids_VC[codes[-1]]
        return torch.stack(codes, dim=1)

    def quantised(self, codes_TK: torch.Tensor, codebooks: Sequence[int]) -> torch.Tensor:
        """The sum (T, C) of the centroids of these codebooks' codes."""
        centroids = self.codebooks
        return torch.stack([centroids[k][codes_TK[:, i]] for i, k in enumerate(codebooks)]).sum(0)

    def wave(self, latents_TC: torch.Tensor) -> torch.Tensor:
        """Samples (N,), N = T * hop."""
        return self.decoder["model"](latents_TC.T[None])[0, 0]

    def load_published(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over a state dict under the published names, weight norm folded into the weights.

        Raises InputError where tensors are missing, left over or of another shape.
        """
        state = fold_weight_norm({name: value for name, value in state.items() if not _is_of_training(name)})
        own = self.state_dict()
        wrong = [f"lack {name}" for name in own if name not in state]
        wrong += [f"have {name} besides" for name in state if name not in own]
        wrong += [
            f"have {name} of shape {tuple(value.shape)}, expected {tuple(own[name].shape)}"
            for name, value in state.items()
            if name in own and value.shape != own[name].shape
        ]
        if wrong:
            raise InputError(
                f"the weights {'; '.join(wrong[:3])} ({len(wrong)} in all): they are not those of a SpeechTokenizer of "
                "the shape that config.json says"
            )
        self.load_state_dict(state)


class SpeechTokenizer:
    """Some codebooks of a SpeechTokenizer as one stream.

    Every wave is encoded alone: what else is in its batch cannot touch it.
    """

    kind = "speech_tokenizer"

    def __init__(self, model: SpeechTokenizerModel, codebooks: Sequence[int] | None = None) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.eval().to(self._device)
        self.codebooks = checked_codebooks(codebooks, model.shape.n_q)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.model.shape.sample_rate

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""
        return self.sample_rate / int(np.prod(self.model.shape.strides))

    @property
    def num_codebooks(self) -> int:
        """Codebooks of this stream."""
        return len(self.codebooks)

    @property
    def codebook_size(self) -> int:
        """Codes of one codebook."""
        return self.model.shape.codebook_size

    @classmethod
    def bring(cls, config: SpeechTokenizerUnits, folder: str) -> None:
        """Write a tokenizer folder from `config.path`. Raises InputError where weights or codebooks do not fit."""
        if not storage.exists(config.path):
            raise InputError(
                f"path {config.path!r} is not there: download config.json and SpeechTokenizer.pt into a folder, "
                "python -m model.convert FOLDER DST, and name DST"
            )
        source = bring_weights(config.path, None, folder)
        tokenizer = cls(read_model(weights_location(folder, source)[0]), config.codebooks)
        write_tokenizer(tokenizer, folder, codebooks=list(tokenizer.codebooks))

    @torch.inference_mode()
    def encode(self, waves: Sequence[np.ndarray], speakers: Sequence[str | None] | None = None) -> list[np.ndarray]:
        """int16 codes (T, K) of each float wave (N,) at `sample_rate`; T = N / samples of a frame, rounded up."""
        return [self._encode(np.asarray(wave_N, dtype=np.float32)) for wave_N in waves]

    @torch.inference_mode()
    def decode(self, codes_TK: np.ndarray, codebooks: Sequence[int] | None = None) -> np.ndarray:
        """float32 samples at `sample_rate` of codes (T, K) of `codebooks` (this stream's by default).

        Missing codebooks add nothing: the first alone sounds without the speaker's voice, the others alone without
        what is said; all of them, side by side with codebooks=range(8), sound as the recording did.
        """
        columns = checked_codebooks(self.codebooks if codebooks is None else codebooks, self.model.shape.n_q)
        codes_TK = checked_codes(codes_TK, len(columns), self.codebook_size)
        if not len(codes_TK):
            return np.zeros(0, np.float32)
        on_device_TK = torch.from_numpy(codes_TK).to(self._device)
        return self.model.wave(self.model.quantised(on_device_TK, columns)).cpu().numpy()

    def save(self, folder: str) -> None:
        """Write config.json, and the model in a folder beside it."""
        weights = {name: value.cpu().contiguous() for name, value in self.model.state_dict().items()}
        storage.write_bytes(storage.join(folder, WEIGHTS_FOLDER, WEIGHTS_NAME), save(weights))
        storage.write_json(storage.join(folder, WEIGHTS_FOLDER, CONFIG_NAME), asdict(self.model.shape))
        write_tokenizer(self, folder, codebooks=list(self.codebooks))

    @classmethod
    def load(cls, folder: str, config: dict[str, Any]) -> "SpeechTokenizer":
        """Read what `save` or `bring` wrote."""
        return cls(read_model(storage.join(folder, WEIGHTS_FOLDER)), config["codebooks"])

    def _encode(self, wave_N: np.ndarray) -> np.ndarray:
        if not wave_N.size:
            return np.zeros((0, self.num_codebooks), np.int16)
        latents_TC = self.model.latents(torch.from_numpy(wave_N).to(self._device)[None, None])
        parts = latents_TC.split(PIECE_FRAMES)
        codes_TQ = torch.cat([self.model.quantise(part_TC, self.codebooks[-1] + 1) for part_TC in parts])
        return codes_TQ[:, list(self.codebooks)].to(torch.int16).cpu().numpy()


def read_model(folder: str) -> SpeechTokenizerModel:
    """The model of a folder with config.json and one safetensors file.

    Raises InputError where files are missing or do not fit.
    """
    names = [name for name in storage.list_files(folder) if name.endswith(".safetensors")]
    if len(names) != 1:
        raise InputError(f"{folder!r} holds {', '.join(names) or 'no safetensors'}, expected one file of weights")
    model = SpeechTokenizerModel(Shape.read(storage.read_json(storage.join(folder, CONFIG_NAME))))
    model.load_published(load(storage.read_bytes(storage.join(folder, names[0]))))
    return model


def _is_of_training(name: str) -> bool:
    return name.startswith(_OF_TRAINING[0]) or name.endswith(_OF_TRAINING[1:])


class _Quantiser(nn.Module):
    def __init__(self, codebook_size: int, dimension: int) -> None:
        super().__init__()
        self._codebook = nn.Module()
        self._codebook.register_buffer("embed", torch.zeros(codebook_size, dimension))


class _Conv(nn.Module):
    """A convolution that keeps length / stride, rounded up; the ends are mirrored."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.ModuleDict({"conv": nn.Conv1d(inner, outer, kernel, stride, dilation=dilation)})
        self._padding, self._stride = (kernel - 1) * dilation + 1 - stride, stride

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        right = self._padding // 2
        left, right = self._padding - right, right + (-x_BCN.shape[-1]) % self._stride
        filled = max(0, max(left, right) + 1 - x_BCN.shape[-1])  # what is too short to mirror goes on as silence
        padded_BCN = nn.functional.pad(nn.functional.pad(x_BCN, (0, filled)), (left, right), mode="reflect")
        return self.conv["conv"](padded_BCN[..., : padded_BCN.shape[-1] - filled])


class _Upsampling(nn.Module):
    """A transposed convolution that gives length * stride."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.convtr = nn.ModuleDict({"convtr": nn.ConvTranspose1d(inner, outer, 2 * stride, stride)})
        self._left, self._right = stride - stride // 2, stride // 2

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        y_BCN = self.convtr["convtr"](x_BCT)
        return y_BCN[..., self._left : y_BCN.shape[-1] - self._right]


class _Lstm(nn.Module):
    """An LSTM over frames with its input added; both directions side by side double the channels."""

    def __init__(self, channels: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, bidirectional=bidirectional)

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        x_TBC = x_BCT.permute(2, 0, 1)
        y_TBC = self.lstm(x_TBC)[0]
        return (y_TBC + x_TBC.repeat(1, 1, y_TBC.shape[2] // x_TBC.shape[2])).permute(1, 2, 0)


class _Snake(nn.Module):
    """x + sin(a x)^2 / a with a learnt for every channel (Ziyin et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        return x_BCN + torch.sin(self.alpha * x_BCN).square() / (self.alpha + 1e-9)


class _Residual(nn.Module):
    def __init__(self, shape: Shape, channels: int, dilation: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.block = nn.Sequential(
            _activation(shape, channels),
            _Conv(channels, hidden, shape.residual_kernel_size, dilation=dilation),
            _activation(shape, hidden),
            _Conv(hidden, channels, 1),
        )
        self.shortcut = _Conv(channels, channels, 1)

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x_BCN) + self.block(x_BCN)


def _activation(shape: Shape, channels: int) -> nn.Module:
    return nn.ELU() if shape.activation == "ELU" else _Snake(channels)


def _residuals(shape: Shape, channels: int) -> list[nn.Module]:
    return [_Residual(shape, channels, shape.dilation_base**i) for i in range(shape.n_residual_layers)]


def _encoder_layers(shape: Shape) -> list[nn.Module]:
    channels = shape.n_filters
    layers: list[nn.Module] = [_Conv(1, channels, OUTER_KERNEL)]
    for stride in reversed(shape.strides):
        layers += _residuals(shape, channels)
        layers += [_activation(shape, channels), _Conv(channels, 2 * channels, 2 * stride, stride)]
        channels *= 2
    if shape.lstm_layers:
        layers.append(_Lstm(channels, shape.lstm_layers, shape.bidirectional))
    channels *= 2 if shape.bidirectional else 1
    return [*layers, _activation(shape, channels), _Conv(channels, shape.dimension, OUTER_KERNEL)]


def _decoder_layers(shape: Shape) -> list[nn.Module]:
    channels = shape.n_filters * 2 ** len(shape.strides)
    layers: list[nn.Module] = [_Conv(shape.dimension, channels, OUTER_KERNEL)]
    if shape.lstm_layers:
        layers.append(_Lstm(channels, shape.lstm_layers, bidirectional=False))
    for stride in shape.strides:
        layers += [_activation(shape, channels), _Upsampling(channels, channels // 2, stride)]
        channels //= 2
        layers += _residuals(shape, channels)
    return [*layers, _activation(shape, channels), _Conv(channels, 1, OUTER_KERNEL)]
