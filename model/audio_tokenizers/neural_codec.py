"""Codes of a neural codec: EnCodec, Mimi, DAC or X-codec, brought by the user and loaded through transformers.

AnyGPT's music is EnCodec at 32 kHz with all 4 codebooks of 2048 codes at 50 frames a second: 200 codes a second, which
the token store holds frame-major.

Shapes: N = samples, T = frames, K = codebooks of the stream, Q = codebooks of the codec.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from data import storage
from data.errors import InputError
from model.audio_tokenizers.base import write_tokenizer
from model.audio_tokenizers.brought import WEIGHTS_FOLDER, bring_weights, weights_location
from model.audio_tokenizers.codebooks import checked_codebooks, checked_codes
from model.audio_tokenizers.codec_families import Codec, load_codec
from model.config import NeuralCodec


class NeuralCodecTokenizer:
    """Some codebooks of a codec as one stream.

    Every wave is encoded alone: what else is in its batch cannot touch it, and on one device the codes are equal bit
    for bit.
    """

    kind = "neural_codec"

    def __init__(self, codec: Codec, codebooks: Sequence[int] | None = None, source: dict[str, Any] | None = None):
        self.codec = codec
        self.codebooks = checked_codebooks(codebooks, codec.num_codebooks)
        self._source = source or {"path": WEIGHTS_FOLDER, "revision": None}
        self._device = next(codec.model.parameters()).device  # type: ignore[attr-defined]

    @property
    def sample_rate(self) -> int:
        """Hz, the codec's."""
        return self.codec.sample_rate

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""
        return self.codec.sample_rate / self.codec.hop_samples

    @property
    def num_codebooks(self) -> int:
        """Codebooks of this stream."""
        return len(self.codebooks)

    @property
    def codebook_size(self) -> int:
        """Codes of one codebook."""
        return self.codec.codebook_size

    @classmethod
    def bring(cls, config: NeuralCodec, folder: str) -> None:
        """Write a tokenizer folder from `config.path`. Raises InputError where weights or codebooks do not fit."""
        source = bring_weights(config.path, config.revision, folder)
        tokenizer = cls(load_codec(*weights_location(folder, source)), config.codebooks, source)
        tokenizer._write_config(folder)

    @torch.inference_mode()
    def encode(self, waves: Sequence[np.ndarray], speakers: Sequence[str | None] | None = None) -> list[np.ndarray]:
        """int16 codes (T, K) of each float wave (N,) at `sample_rate`; T = N / samples of a frame, rounded up."""
        return [self._encode(np.asarray(wave_N, dtype=np.float32)) for wave_N in waves]

    @torch.inference_mode()
    def decode(self, codes_TK: np.ndarray, codebooks: Sequence[int] | None = None) -> np.ndarray:
        """float32 samples at `sample_rate` of codes (T, K) of `codebooks` (this stream's by default).

        Fewer codebooks than the codec has sound coarser. Raises InputError where the first ones are missing, because
        the others describe what those left over: join the streams, and say what the columns are.
        """
        columns = self.codebooks if codebooks is None else tuple(codebooks)
        if columns != tuple(range(len(columns))):
            raise InputError(
                f"codebooks {list(columns)} cannot be decoded without those before them: join the streams of codebooks "
                f"0 to {max(columns)} side by side and give codebooks=range({max(columns) + 1})"
            )
        codes_TK = checked_codes(codes_TK, len(columns), self.codebook_size)
        if not len(codes_TK):
            return np.zeros(0, np.float32)
        codes_KT = torch.from_numpy(codes_TK.T.copy()).to(self._device)
        return self.codec.wave(codes_KT)[: len(codes_TK) * self.codec.hop_samples].cpu().numpy()

    def save(self, folder: str) -> None:
        """Write config.json and the model's own folder."""
        with tempfile.TemporaryDirectory() as local:
            self.codec.model.save_pretrained(local)  # type: ignore[attr-defined]
            storage.copy_folder(local, storage.join(folder, WEIGHTS_FOLDER))
        self._source = {"path": WEIGHTS_FOLDER, "revision": None}
        self._write_config(folder)

    @classmethod
    def load(cls, folder: str, config: dict[str, Any]) -> "NeuralCodecTokenizer":
        """Read what `save` or `bring` wrote."""
        source = config["source"]
        return cls(load_codec(*weights_location(folder, source)), config["codebooks"], source)

    def _encode(self, wave_N: np.ndarray) -> np.ndarray:
        if not wave_N.size:
            return np.zeros((0, self.num_codebooks), np.int16)
        wave_11N = torch.from_numpy(wave_N).to(self._device)[None, None]
        codes_QT = self.codec.codes(wave_11N, self.codebooks[-1] + 1)
        return codes_QT[list(self.codebooks)].T.to(torch.int16).cpu().numpy()

    def _write_config(self, folder: str) -> None:
        write_tokenizer(self, folder, source=self._source, codebooks=list(self.codebooks))
