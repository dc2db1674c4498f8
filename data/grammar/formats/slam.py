"""Slam's interleaving (Maimon et al. 2025)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from data.grammar.interleave import WordSpan, poisson_spans
from data.grammar.interleaved import Interleaving


class SlamPoisson(Interleaving):
    """Slam's interleaving (Maimon et al. 2025): spans of Poisson length become speech, overlapping draws rejected."""

    kind: Literal["slam_poisson"] = "slam_poisson"
    text_marker: str = "<text>"
    speech_marker: str = "<speech>"
    mean_span_words: float = Field(10.0, gt=0, description="lambda of the Poisson distribution")
    speech_fraction: float = Field(0.3, ge=0, le=1, description="share of the words that become speech, at least")
    spelling: dict[str, str] = Field({"unit": "<Un{}>"}, description="as SequenceFormat.spelling")

    def spans(self, num_words: int, rng: np.random.Generator) -> list[WordSpan]:
        """Spans of Poisson length as speech, the rest as text."""
        return poisson_spans(num_words, self.mean_span_words, self.speech_fraction, rng)
