"""The judge of voices: the GE2E speaker encoder (Wan et al. 2018) whose weights ship in the resemblyzer wheel."""

import warnings
from importlib.metadata import version
from importlib.resources import files

import numpy as np

from data.audio import resample
from eval.judges.base import judge_id

SAMPLE_RATE = 16000


class SpeakerEncoder:
    """Voices as unit vectors (256,). The same wave gives the same vector, whatever was heard before."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # webrtcvad still imports pkg_resources, and says so
            from resemblyzer import VoiceEncoder

        weights = files("resemblyzer").joinpath("pretrained.pt").read_bytes()
        self.id = judge_id("resemblyzer", version("resemblyzer"), weights)
        self._encoder = VoiceEncoder("cpu", verbose=False)

    def embed(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """A unit vector (256,) for a mono float wave (N,), long silences cut out.

        A wave without speech is embedded as it is. Raises ValueError where there is nothing to hear at all.
        """
        samples = resample(np.asarray(wave, np.float32), sample_rate, SAMPLE_RATE)
        if not samples.size or not np.abs(samples).max() > 0:
            raise ValueError(f"{samples.size} samples of silence have no voice")
        voiced = _speech_of(np.clip(samples, -1.0, 1.0))
        embedding = self._encoder.embed_utterance(voiced if voiced.size else samples)
        if not np.isfinite(embedding).all():
            raise ValueError("the encoder finds no voice in these samples")
        return embedding / np.linalg.norm(embedding)


def _speech_of(samples: np.ndarray) -> np.ndarray:
    """The wheel's own preprocessing. It needs one whole window of voice detection."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from resemblyzer import preprocess_wav
        from resemblyzer.hparams import vad_window_length

    if samples.size < vad_window_length * SAMPLE_RATE // 1000:
        return samples
    return preprocess_wav(samples)
