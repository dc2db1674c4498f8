"""Which words of a record are shown as text and which as speech."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_REJECTED = 1000  # draws in a row that overlap: what is left are gaps that hardly any span fits


@dataclass(frozen=True)
class WordSpan:
    """Words [start, stop) of a record, as speech or as text."""

    start: int
    stop: int
    is_speech: bool


def alternating_spans(
    num_words: int, text_words: tuple[int, int], speech_words: tuple[int, int], rng: np.random.Generator
) -> list[WordSpan]:
    """Text and speech in turn, beginning with either, each span of a drawn number of words (SPIRIT LM)."""
    is_speech = bool(rng.random() < 0.5)
    spans: list[WordSpan] = []
    start = 0
    while start < num_words:
        low, high = speech_words if is_speech else text_words
        stop = min(num_words, start + int(rng.integers(low, high + 1)))
        spans.append(WordSpan(start, stop, is_speech))
        start, is_speech = stop, not is_speech
    return spans


def poisson_spans(
    num_words: int, mean_words: float, speech_fraction: float, rng: np.random.Generator
) -> list[WordSpan]:
    """Spans of Poisson length become speech until they hold `speech_fraction` of the words (Slam).

    A draw that overlaps an earlier span or touches one is rejected; a span ends with the record. The last span may
    go beyond the share. Of a draw of no words one word is shown.
    """
    wanted = math.ceil(num_words * speech_fraction)
    speech = np.zeros(num_words + 2, dtype=bool)  # word i is speech[i + 1]
    rejected = 0
    while speech.sum() < wanted and rejected < MAX_REJECTED:
        start = int(rng.integers(num_words))
        stop = min(num_words, start + max(1, int(rng.poisson(mean_words))))
        if speech[start : stop + 2].any():
            rejected += 1
            continue
        speech[start + 1 : stop + 1] = True
        rejected = 0
    return _runs(speech[1:-1].tolist())


def _runs(speech: Sequence[bool]) -> list[WordSpan]:
    edges = [i for i in range(1, len(speech)) if speech[i] != speech[i - 1]]
    bounds = [0, *edges, len(speech)]
    return [WordSpan(start, stop, speech[start]) for start, stop in itertools.pairwise(bounds)]
