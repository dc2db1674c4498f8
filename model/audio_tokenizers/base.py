"""What an audio tokenizer is, and how one is found on disk. A new kind is one file and one line here.

Shapes: N = samples, T = frames, K = codebooks.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load, save

from data import storage
from data.errors import InputError
from data.store import StreamInfo
from model.audio_tokenizers.compression import FOLDER as COMPRESSION
from model.audio_tokenizers.compression import Compression, load_compression
from model.config import AudioTokenizerConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
FORMAT_VERSION = 1

# kind -> module:class; modules are imported when their kind is asked for
KINDS = {
    "kmeans_units": "model.audio_tokenizers.kmeans_units:KMeansUnitTokenizer",
    "residual_kmeans": "model.audio_tokenizers.residual_kmeans:ResidualKMeansTokenizer",
    "pitch_vq": "model.audio_tokenizers.pitch_vq:PitchVQTokenizer",
    "style": "model.audio_tokenizers.style:StyleTokenizer",
    "ssl_units": "model.audio_tokenizers.ssl_units:SslUnitTokenizer",
    "neural_codec": "model.audio_tokenizers.neural_codec:NeuralCodecTokenizer",
    "speech_tokenizer": "model.audio_tokenizers.speech_tokenizer:SpeechTokenizer",
}


class AudioTokenizer(Protocol):
    """Waveforms to codes. `encode` of one wave never depends on what is in its batch."""

    kind: str

    @property
    def sample_rate(self) -> int: ...
    @property
    def frame_rate_hz(self) -> float: ...
    @property
    def num_codebooks(self) -> int: ...
    @property
    def codebook_size(self) -> int: ...

    def encode(self, waves: Sequence[np.ndarray], speakers: Sequence[str | None] | None = None) -> list[np.ndarray]:
        """int16 codes (T, K) of each float wave (N,) at `sample_rate`; T >= 1 for any sound, 0 for an empty wave.

        `speakers`, one per wave, matters to kinds that normalise by speaker; the others ignore it.
        """
        ...

    def save(self, folder: str) -> None:
        """Write config.json and model.safetensors."""
        ...


class DecodingTokenizer(AudioTokenizer, Protocol):
    """An audio tokenizer whose codes alone give the sound back."""

    def decode(self, codes_TK: np.ndarray) -> np.ndarray:
        """float32 samples at `sample_rate` of codes (T, K)."""
        ...


class FittedTokenizer(AudioTokenizer, Protocol):
    """An audio tokenizer that is fitted on frames of the corpus."""

    def features(self, wave_N: np.ndarray) -> np.ndarray:
        """The frames (T, D) that are quantised."""
        ...

    def quantise(self, features_TD: np.ndarray) -> np.ndarray:
        """int16 codes (T, K) of such frames."""
        ...

    def quality(self, features_ND: np.ndarray) -> dict[str, float]:
        """How well the codebooks serve these frames."""
        ...


class UtteranceFittedTokenizer(AudioTokenizer, Protocol):
    """An audio tokenizer that is fitted on whole utterances and who speaks in them."""

    @staticmethod
    def features_of(config: Any, wave_N: np.ndarray) -> np.ndarray:
        """The features (F, D) of one utterance that a tokenizer of `config` is fitted on."""
        ...

    @classmethod
    def fit_utterances(
        cls, config: Any, features: Sequence[np.ndarray], speakers: Sequence[str | None], seed: int
    ) -> "UtteranceFittedTokenizer":
        """Fit on features (F, D) of utterances."""
        ...

    def quantise(self, features_FD: np.ndarray, speaker: str | None = None) -> np.ndarray:
        """int16 codes (T, K) of such features."""
        ...

    def quality_of_utterances(self, features: Sequence[np.ndarray], speakers: Sequence[str | None]) -> dict[str, float]:
        """How well the codes serve these utterances."""
        ...


class BroughtTokenizer(AudioTokenizer, Protocol):
    """An audio tokenizer whose weights, or some of them, a user brings."""

    @classmethod
    def bring(cls, config: Any, folder: str) -> None:
        """Write a tokenizer folder that `load_audio_tokenizer` opens, from what `config` names (see brought.py).

        Raises InputError where the weights are missing or of another shape than `config` says.
        """
        ...


def is_brought(kind: str) -> bool:
    """Whether weights of this kind come from the user. Raises InputError for an unknown kind."""
    return hasattr(tokenizer_class(kind), "bring")


def fits_utterances(kind: str) -> bool:
    """Whether this kind is fitted on whole utterances. Raises InputError for an unknown kind."""
    return hasattr(tokenizer_class(kind), "fit_utterances")


def load_audio_tokenizer(folder: str) -> Any:
    """The tokenizer saved in `folder`, by the `kind` of its config.json. Raises InputError where there is none."""
    path = storage.join(folder, CONFIG_NAME)
    if not storage.exists(path):
        raise InputError(f"{folder!r} holds no {CONFIG_NAME}: give the folder of an audio tokenizer")
    config = storage.read_json(path)
    tokenizer = tokenizer_class(config.get("kind", "")).load(folder, config)
    compression = load_compression(storage.join(folder, COMPRESSION))
    if compression is not None:
        tokenizer.compression = compression
    return tokenizer


def write_tokenizer(
    tokenizer: AudioTokenizer, folder: str, tensors: dict[str, torch.Tensor] | None = None, **facts: Any
) -> None:
    """Write `tensors` as model.safetensors, then config.json: what every tokenizer says of itself, and `facts`."""
    if tensors is not None:
        storage.write_bytes(storage.join(folder, WEIGHTS_NAME), save(tensors))
    own = {
        "kind": tokenizer.kind,
        "format_version": FORMAT_VERSION,
        "sample_rate": tokenizer.sample_rate,
        "frame_rate_hz": tokenizer.frame_rate_hz,
        "num_codebooks": tokenizer.num_codebooks,
        "codebook_size": tokenizer.codebook_size,
    }
    storage.write_json(storage.join(folder, CONFIG_NAME), {**own, **facts})


def read_tensors(folder: str) -> dict[str, torch.Tensor]:
    """The tensors that `write_tokenizer` wrote."""
    return load(storage.read_bytes(storage.join(folder, WEIGHTS_NAME)))


def compression_of(tokenizer: Any) -> Compression | None:
    """What shortens the tokenizer's codes for the token store; None where it stores every frame."""
    return getattr(tokenizer, "compression", None)


def tokenizer_class(kind: str) -> Any:
    """The class of an audio tokenizer kind. Raises InputError for an unknown one."""
    if kind not in KINDS:
        raise InputError(f"audio tokenizer kind {kind!r} is unknown: choose from {', '.join(sorted(KINDS))}")
    module, name = KINDS[kind].split(":")
    return getattr(import_module(module), name)


def fit_audio_tokenizer(config: AudioTokenizerConfig, features_ND: np.ndarray, seed: int) -> FittedTokenizer:
    """A tokenizer fitted on frames that `features` of its own class made. Raises InputError for no frames."""
    if not len(features_ND):
        raise InputError(f"audio tokenizer {config.kind}: no audio to fit it on; see the quarantine of prepare")
    fit: Callable[..., FittedTokenizer] = tokenizer_class(config.kind).fit
    return fit(config, features_ND, seed)


def tokenizer_id(folder: str) -> str:
    """The name of a tokenizer by content: codes of equal ids mean the same sounds."""
    return storage.hash_folder(folder)[:16]


def stream_info(tokenizer: AudioTokenizer, identity: str) -> StreamInfo:
    """What the token store says of a stream made by `tokenizer`, with the codes of its compression where it has one."""
    size = (compression_of(tokenizer) or tokenizer).codebook_size
    return StreamInfo(tokenizer.frame_rate_hz, tokenizer.num_codebooks, size, identity)


def codebook_use(codes_N: np.ndarray, codebook_size: int) -> dict[str, float]:
    """Share of a codebook that occurs, the entropy of its codes in bits, and 2 to that power."""
    return usage_of_counts(np.bincount(codes_N, minlength=codebook_size))


def usage_of_counts(counts: np.ndarray) -> dict[str, float]:
    """As `codebook_use`, of how often each code (K,) occurs."""
    shares = counts[counts > 0] / max(1, counts.sum())
    entropy_bits = float(-(shares * np.log2(shares)).sum())
    return {
        "codebook_used": float((counts > 0).mean()),
        "entropy_bits": entropy_bits,
        "perplexity": 2.0**entropy_bits,
    }
