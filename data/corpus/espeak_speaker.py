"""The built-in speaker of written dialogues: espeak-ng, and audio tokenizers for what it says."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data import storage
from data.audio import AudioError, load_audio
from data.corpus.espeak import synthesize
from data.corpus.spoken_dialogues import Sound


class Encoder(Protocol):
    """The part of an audio tokenizer that is needed here (model.audio_tokenizers.base has them)."""

    @property
    def sample_rate(self) -> int: ...

    def encode(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class EspeakSpeaker:
    """Speaks (text, voice) pairs; voices are espeak-ng's names, e.g. en-US+f2. `tokenizers` by stream.

    A text that gives no readable audio gives an empty sound.
    """

    tokenizers: Mapping[str, Encoder]
    sample_rate: int = 16000
    words_per_minute: int = 170
    pitch: int = 50
    num_workers: int = 1
    shard_utterances: int = 400

    def __call__(self, texts: Sequence[tuple[str, str]]) -> list[Sound]:
        """The sounds, in order. Raises InputError where espeak-ng is not installed or a voice is unknown."""
        with tempfile.TemporaryDirectory() as folder:
            items = [
                {
                    "path": f"audio/{index:06d}.wav",
                    "text": text,
                    "voice": voice,
                    "rate": self.words_per_minute,
                    "pitch": self.pitch,
                }
                for index, (text, voice) in enumerate(texts)
            ]
            made = synthesize(items, folder, self.sample_rate, self.shard_utterances, self.num_workers)
            return [self._encoded(storage.join(folder, row["path"]), float(row["duration"])) for row in made]

    def _encoded(self, path: str, duration_s: float) -> Sound:
        try:
            waves = {name: load_audio(path, tokenizer.sample_rate) for name, tokenizer in self.tokenizers.items()}
        except AudioError:
            return Sound({})
        codes = {name: tokenizer.encode([waves[name]])[0] for name, tokenizer in self.tokenizers.items()}
        return Sound({name: np.asarray(c, np.int16).reshape(-1) for name, c in codes.items()}, duration_s)
