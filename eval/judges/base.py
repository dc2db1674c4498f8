"""What every judge is: a model that scores, and says by hash which weights it used.

`id` is `<name>-<version>-<first 12 hex digits of the hash of its weights>`: two reports with equal judge ids
can be compared, any other two cannot.
"""

from typing import Protocol

import numpy as np

from data import storage

HASH_DIGITS = 12


class Judge(Protocol):
    """A model that scores audio or text."""

    @property
    def id(self) -> str:
        """Name, version and weight hash."""
        ...


class SpeechRecogniser(Judge, Protocol):
    """Writes down what it hears. The noise it may add depends on `utterance_id` alone."""

    def transcribe(self, wave: np.ndarray, sample_rate: int, utterance_id: str) -> str:
        """The words of a mono float wave (full scale 1.0), lower case, '' when none are heard."""
        ...


class SpeakerJudge(Judge, Protocol):
    """Places voices on a sphere: the cosine of two vectors says how alike two voices are."""

    def embed(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """A unit vector for a mono float wave."""
        ...


class CaptionJudge(Judge, Protocol):
    """Places audio and captions on one sphere."""

    def embed_audio(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """A unit vector for a mono float wave."""
        ...

    def embed_text(self, caption: str) -> np.ndarray:
        """A unit vector for a caption."""
        ...


def judge_id(name: str, version: str, *weights: bytes) -> str:
    """The id of a judge whose behaviour is fixed by `weights` (file contents, in a fixed order)."""
    digest = storage.hash_json([storage.hash_bytes(content) for content in weights])
    return f"{name}-{version}-{digest[:HASH_DIGITS]}"
