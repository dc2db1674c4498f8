"""Speech units of published language models: k-means over a layer of a self-supervised encoder.

Lakhotia et al. 2021 (GSLM), and with them SpeechGPT, SPIRIT LM and TWIST. The encoder is brought; the centroids are
brought too, or fitted by fit_tokenizer.
Shapes: N = samples, T = frames, D = features, K = clusters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from data import storage
from data.chunking import Chunk, plan_chunks
from data.errors import InputError
from data.timing import seconds_to_frames
from model.audio_tokenizers.assignment import assign
from model.audio_tokenizers.base import CONFIG_NAME, FORMAT_VERSION, WEIGHTS_NAME
from model.audio_tokenizers.brought import bring_weights, copy_weights, weights_location
from model.audio_tokenizers.ssl_encoder import (
    ConvShape,
    SslEncoder,
    load_ssl_encoder,
    normalised,
    read_encoder_config,
    read_front_settings,
)
from model.config import SslUnits

# Padded audio of one forward pass. A GPU wants many clips at once; a CPU is busy with one, and padding costs it time.
BATCH_S = {"cuda": 320.0, "cpu": 5.0}
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class SslSettings:
    """What config.json of a saved tokenizer says beside its shape."""

    source: dict[str, Any]  # of the encoder's weights, see brought.py
    layer: int
    normalize: bool
    chunk_s: float
    overlap_s: float
    dtype: str = "auto"
    batch_s: float | None = None


@dataclass(frozen=True)
class _Piece:
    """A chunk of one wave, ready for the encoder."""

    wave: int
    chunk: Chunk
    samples_N: np.ndarray


class SslUnitTokenizer:
    """One codebook over an encoder's features. Without centroids it has features and no codes yet."""

    kind = "ssl_units"
    num_codebooks = 1

    def __init__(
        self,
        encoder: SslEncoder,
        centroids_KD: torch.Tensor | None,
        sample_rate: int,
        codebook_size: int,
        settings: SslSettings,
        folder: str,
    ) -> None:
        """`folder` is where `settings.source` lies. Raises InputError where centroids and encoder do not fit."""
        if centroids_KD is not None and tuple(centroids_KD.shape) != (codebook_size, encoder.dimension):
            raise InputError(
                f"the centroids are {tuple(centroids_KD.shape)}, expected (codebook_size, width of the encoder) = "
                f"({codebook_size}, {encoder.dimension}): check codebook_size, path and layer against the k-means"
            )
        self.encoder = encoder
        self.centroids_KD = centroids_KD
        self.sample_rate = sample_rate
        self.codebook_size = codebook_size
        self.settings = settings
        self.folder = folder
        self._on_device_KD = None if centroids_KD is None else centroids_KD.to(encoder.device, torch.float32)

    @property
    def frame_rate_hz(self) -> float:
        """Units per second: the sample rate over the strides of the front end."""
        return self.sample_rate / self.encoder.conv.hop_samples

    @staticmethod
    def fits_codebook(config: SslUnits) -> bool:
        """Whether centroids are to be fitted, because none are brought."""
        return config.kmeans_path is None

    @classmethod
    def bring(cls, config: SslUnits, folder: str) -> None:
        """Write the encoder and, where brought, the centroids. Raises InputError where they do not fit each other."""
        source = bring_weights(config.path, config.revision, folder)
        path, revision = weights_location(folder, source)
        shape = read_encoder_config(path, revision, config.layer)
        front = read_front_settings(path, revision)
        if config.sample_rate != front["sampling_rate"]:
            raise InputError(
                f"sample_rate is {config.sample_rate} Hz, but the encoder {config.path!r} hears "
                f"{front['sampling_rate']} Hz: set sample_rate to that"
            )
        if config.kmeans_path is not None:
            cls.give_codebook(folder, read_centroids(config.kmeans_path))
        conv = ConvShape(tuple(shape.conv_kernel), tuple(shape.conv_stride))
        settings = SslSettings(
            source,
            config.layer,
            front["do_normalize"] if config.normalize is None else config.normalize,
            config.chunk_s,
            config.overlap_s,
            config.dtype,
            config.batch_s,
        )
        _write_config(folder, config.sample_rate, conv, config.codebook_size, settings)

    @staticmethod
    def give_codebook(folder: str, centroids_KD: torch.Tensor) -> None:
        """Complete what `bring` wrote with fitted centroids."""
        storage.write_bytes(storage.join(folder, WEIGHTS_NAME), save({"centroids": centroids_KD.contiguous()}))

    @classmethod
    def load(cls, folder: str, config: dict[str, Any]) -> "SslUnitTokenizer":
        """Read what `bring` or `save` wrote; on a GPU where one is visible."""
        settings = SslSettings(**config["encoder"])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = _DTYPES.get(settings.dtype, torch.bfloat16 if device.type == "cuda" else torch.float32)
        encoder = load_ssl_encoder(*weights_location(folder, settings.source), settings.layer, dtype, device)
        weights = storage.join(folder, WEIGHTS_NAME)
        centroids_KD = load(storage.read_bytes(weights))["centroids"] if storage.exists(weights) else None
        return cls(encoder, centroids_KD, config["sample_rate"], config["codebook_size"], settings, folder)

    def save(self, folder: str) -> None:
        """Write config.json, model.safetensors and the encoder's weights."""
        if self.centroids_KD is not None:
            self.give_codebook(folder, self.centroids_KD)
        copy_weights(self.folder, folder, self.settings.source)
        _write_config(folder, self.sample_rate, self.encoder.conv, self.codebook_size, self.settings)

    def encode(self, waves: Sequence[np.ndarray], speakers: Sequence[str | None] | None = None) -> list[np.ndarray]:
        """int16 units (T, 1) of each float wave (N,) at `sample_rate`."""
        if self._on_device_KD is None:
            raise InputError(f"the tokenizer in {self.folder!r} has no centroids yet: run fit_tokenizer to its end")
        codes: list[dict[int, np.ndarray]] = [{} for _ in waves]
        for piece, features_TD in self._pieces_of(waves):
            codes_T = assign(features_TD.float(), self._on_device_KD).cpu().numpy()
            codes[piece.wave][piece.chunk.start] = codes_T.astype(np.int16)[:, None]
        return [_joined(parts, np.zeros((0, 1), np.int16)) for parts in codes]

    def features_of_waves(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float32 features (T, D) of each wave, which `encode` compares with the centroids."""
        features: list[dict[int, np.ndarray]] = [{} for _ in waves]
        for piece, features_TD in self._pieces_of(waves):
            features[piece.wave][piece.chunk.start] = features_TD.float().cpu().numpy()
        return [_joined(parts, np.zeros((0, self.encoder.dimension), np.float32)) for parts in features]

    def _pieces_of(self, waves: Sequence[np.ndarray]) -> Iterator[tuple[_Piece, torch.Tensor]]:
        """Every chunk of every wave with the features (T, D) of the frames it keeps."""
        for batch in self._batches(waves):
            for piece, features_TD in zip(batch, self.encoder.features([p.samples_N for p in batch]), strict=True):
                chunk = piece.chunk
                yield piece, features_TD[chunk.keep_start - chunk.start : chunk.keep_end - chunk.start]

    def _batches(self, waves: Sequence[np.ndarray]) -> Iterator[list[_Piece]]:
        """Chunks in forward passes of bounded size, the longest first, so that little of a pass is padding."""
        limit_s = self.settings.batch_s or BATCH_S[self.encoder.device.type]
        limit = seconds_to_frames(limit_s, self.frame_rate_hz)
        pieces = [piece for i, wave_N in enumerate(waves) for piece in self._cut(i, wave_N)]
        pieces.sort(key=lambda piece: -len(piece.samples_N))
        while pieces:
            longest = pieces[0].chunk.end - pieces[0].chunk.start
            size = max(1, limit // longest)
            yield pieces[:size]
            pieces = pieces[size:]

    def _cut(self, index: int, wave_N: np.ndarray) -> list[_Piece]:
        """The chunks of a wave. What is shorter than the encoder sees at once is filled up with silence."""
        if not wave_N.size:
            return []
        conv = self.encoder.conv
        samples_N = normalised(wave_N) if self.settings.normalize else np.asarray(wave_N, np.float64)
        samples_N = np.pad(samples_N, (0, max(0, conv.field_samples - samples_N.size)))
        rate = self.frame_rate_hz
        chunk_frames = max(1, seconds_to_frames(self.settings.chunk_s, rate))
        overlap_frames = min(seconds_to_frames(self.settings.overlap_s, rate), chunk_frames - 1)
        pieces = []
        for chunk in plan_chunks(conv.frames(samples_N.size), chunk_frames, overlap_frames):
            first = chunk.start * conv.hop_samples
            last = (chunk.end - 1) * conv.hop_samples + conv.field_samples
            pieces.append(_Piece(index, chunk, samples_N[first:last]))
        return pieces


def read_centroids(path: str) -> torch.Tensor:
    """float32 centroids (K, D) of a safetensors file: its tensor `centroids`, or the only one it has.

    Raises InputError for another kind of file and for tensors of another shape.
    """
    if not storage.exists(path):
        raise InputError(f"kmeans_path {path!r} does not exist: give a safetensors file with the tensor 'centroids'")
    try:
        tensors = load(storage.read_bytes(path))
    except Exception as error:  # safetensors raises its own kind, without a public name
        raise InputError(
            f"kmeans_path {path!r} is no safetensors file ({error}): convert it first, python -m model.convert SRC DST"
        ) from None
    found = tensors.get("centroids", next(iter(tensors.values())) if len(tensors) == 1 else None)
    if found is None or found.ndim != 2:
        raise InputError(
            f"kmeans_path {path!r} holds {', '.join(sorted(tensors))}: expected 'centroids' of shape (K, D)"
        )
    return found.float().contiguous()


def _joined(parts: dict[int, np.ndarray], nothing: np.ndarray) -> np.ndarray:
    return np.concatenate([parts[start] for start in sorted(parts)]) if parts else nothing


def _write_config(folder: str, sample_rate: int, conv: ConvShape, codebook_size: int, settings: SslSettings) -> None:
    storage.write_json(
        storage.join(folder, CONFIG_NAME),
        {
            "kind": SslUnitTokenizer.kind,
            "format_version": FORMAT_VERSION,
            "sample_rate": sample_rate,
            "frame_rate_hz": sample_rate / conv.hop_samples,
            "num_codebooks": 1,
            "codebook_size": codebook_size,
            "encoder": asdict(settings),
        },
    )
