"""The judge of music: a contrastive audio-text encoder (`model/clap.py`) that fit_judges trains on its own clips."""

from pathlib import Path

import numpy as np
import torch

from data import storage
from eval.judges.base import judge_id
from model.clap import CONFIG_NAME, WEIGHTS_NAME, load_clap


class ClapJudge:
    """Clips and captions as unit vectors whose cosine says how well they fit."""

    def __init__(self, folder: str | Path) -> None:
        """Load what fit_judges wrote. Raises InputError where it did not."""
        self._model = load_clap(str(folder))
        weights = [storage.read_bytes(storage.join(folder, name)) for name in (CONFIG_NAME, WEIGHTS_NAME)]
        self.id = judge_id("clap", "1", *weights)

    @torch.no_grad()
    def embed_audio(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """A unit vector (E,) for a mono float wave (N,). Raises ValueError for an empty one."""
        return self._model.embed_audio([self._model.frames(wave, sample_rate)])[0].double().numpy()

    @torch.no_grad()
    def embed_text(self, caption: str) -> np.ndarray:
        """A unit vector (E,) for a caption."""
        return self._model.embed_text([caption])[0].double().numpy()
