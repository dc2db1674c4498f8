"""Frames of training audio for the tokenizers' fit, and what the fitted codes say about the words.

Shapes: N, T = frames, D = features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.manifest import Utterance
from data.quarantine import PassedOver
from data.timing import frame_span
from model.audio_tokenizers.base import tokenizer_class
from model.audio_tokenizers.code_quality import NO_LABEL, label_agreement
from model.config import FramesConfig
from ray_jobs.fit_chunks import Source, over_chunks
from ray_jobs.tokenize_plan import usable_waves


def collect_frames(source: Source, config: FramesConfig) -> tuple[np.ndarray, np.ndarray]:
    """At most config.max_frames frames (N, D) of utterances drawn by the seed, and the word (N,) each lies in.

    Files that tokenize_speech would quarantine are passed over.
    """
    features, words, total = [], [], 0
    for features_TD, words_T in over_chunks(source, frames_of_chunk, config):
        features.append(features_TD)
        words.append(words_T)
        total += len(features_TD)
        if total >= config.max_frames:
            break
    if not total:
        return np.zeros((0, 0), np.float32), np.zeros(0, str)
    return np.concatenate(features)[: config.max_frames], np.concatenate(words)[: config.max_frames]


def frames_of_chunk(
    chunk: list[Utterance], manifest_path: str, max_duration_s: float, config: FramesConfig
) -> tuple[list[tuple[np.ndarray, np.ndarray]], PassedOver]:
    """Frames (T, D) of each of these utterances with the word (T,) of every one, and what was passed over."""
    features_of, passed = tokenizer_class(config.kind).features_of, PassedOver()
    found = []
    for utterance, wave_N in usable_waves(manifest_path, chunk, config.sample_rate, max_duration_s, passed):
        features_TD = features_of(config, wave_N)
        found.append((features_TD, labels_of_frames(utterance.words or (), len(features_TD), config.frame_rate_hz)))
    return found, passed


def unit_word_agreement(units_N: np.ndarray, words_N: np.ndarray) -> dict[str, float]:
    """`label_agreement` with the words; empty without words."""
    return {f"word_{key}": value for key, value in label_agreement(units_N, words_N).items()}


def labels_of_frames(spans: Sequence[Sequence[Any]], num_frames: int, frame_rate_hz: float) -> np.ndarray:
    """The label (T,) of every frame, by spans (label, start_s, end_s); NO_LABEL where there is none."""
    labels = np.full(num_frames, NO_LABEL, dtype="U32")
    for label, start_s, end_s in spans:
        start, end = frame_span(float(start_s), float(end_s), frame_rate_hz, num_frames)
        labels[start:end] = label
    return labels
