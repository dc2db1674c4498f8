"""SPIRIT LM's sequences (Nguyen et al. 2024), base and expressive."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from data.grammar.interleave import WordSpan, alternating_spans
from data.grammar.interleaved import Interleaving
from data.grammar.sequence_format import Words


class SpiritLmBase(Interleaving):
    """SPIRIT LM (Nguyen et al. 2024): interleaved at word boundaries, spans drawn anew at every visit."""

    kind: Literal["spiritlm_base"] = "spiritlm_base"
    text_words: Words = Field((10, 30), description="words of a text span, at least and at most")
    speech_words: Words = Field((5, 15), description="words of a speech span, at least and at most")
    spelling: dict[str, str] = Field({"unit": "[Hu{}]"}, description="as SequenceFormat.spelling")

    def spans(self, num_words: int, rng: np.random.Generator) -> list[WordSpan]:
        """Text and speech in turn."""
        return alternating_spans(num_words, self.text_words, self.speech_words, rng)


class SpiritLmExpressive(SpiritLmBase):
    """SPIRIT LM Expressive: units, pitch and style of a speech span sorted by time."""

    kind: Literal["spiritlm_expressive"] = "spiritlm_expressive"  # type: ignore[assignment]
    shows: Literal["auto", "interleaved", "speech", "text"] = Field(
        "speech", description="speech: the whole record as speech; auto, interleaved and text as in spiritlm_base"
    )
    pitch: str = Field("pitch", description="stream of pitch codes, shown deduplicated")
    style: str = Field("style", description="stream of style codes, shown as they are")
    spelling: dict[str, str] = Field(
        {"unit": "[Hu{}]", "pitch": "[Pi{}]", "style": "[St{}]"}, description="as SequenceFormat.spelling"
    )

    def speech_streams(self) -> tuple[str, ...]:
        """Style before pitch before units."""
        return self.style, self.pitch, self.unit

    def deduplicates(self, stream: str) -> bool:
        """Units as the recipe says, pitch always, style never."""
        return self.deduplicate if stream == self.unit else stream == self.pitch
