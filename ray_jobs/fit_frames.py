"""Frames of training audio for the tokenizers' fit, and what the fitted codes say about the words.

Shapes: N = frames, D = features.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray

from data.manifest import Utterance
from data.quarantine import PassedOver
from data.timing import frame_span
from model.audio_tokenizers.base import tokenizer_class
from model.audio_tokenizers.code_quality import NO_LABEL, label_agreement
from model.config import FramesConfig
from ray_jobs.tokenize_plan import usable_waves

log = logging.getLogger("antiphon")

CHUNK_UTTERANCES = 128


def collect_frames(
    utterances: Sequence[Utterance],
    manifest_path: str,
    config: FramesConfig,
    max_duration_s: float,
    seed: int,
    num_workers: int,
) -> tuple[np.ndarray, np.ndarray]:
    """At most config.max_frames frames (N, D) of utterances drawn by `seed`, and the word (N,) each lies in.

    Chunks of fixed composition run as Ray tasks and are taken in order, so the number of workers changes nothing.
    Files that tokenize_speech would quarantine are passed over.
    """
    drawn = sorted(utterances, key=lambda utterance: utterance.id)
    random.Random(seed).shuffle(drawn)
    features, words, total, passed = [], [], 0, PassedOver()
    for chunk_ND, chunk_words_N, chunk_passed in _chunks(drawn, manifest_path, config, max_duration_s, num_workers):
        passed.merge(chunk_passed)
        if not len(chunk_ND):
            continue
        features.append(chunk_ND)
        words.append(chunk_words_N)
        total += len(chunk_ND)
        if total >= config.max_frames:
            break
    log.info("fit_tokenizer: %s", passed)
    if not total:
        return np.zeros((0, 0), np.float32), np.zeros(0, str)
    return np.concatenate(features)[: config.max_frames], np.concatenate(words)[: config.max_frames]


def _chunks(
    drawn: list[Utterance], manifest_path: str, config: FramesConfig, max_duration_s: float, num_workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray, PassedOver]]:
    task = ray.remote(num_cpus=1)(frames_of_chunk)
    starts = iter(range(0, len(drawn), CHUNK_UTTERANCES))
    running: list[ray.ObjectRef] = []
    while True:
        while len(running) <= num_workers and (start := next(starts, None)) is not None:
            chunk = drawn[start : start + CHUNK_UTTERANCES]
            running.append(task.remote(chunk, manifest_path, config, max_duration_s))
        if not running:
            return
        yield ray.get(running.pop(0))


def frames_of_chunk(
    chunk: list[Utterance], manifest_path: str, config: FramesConfig, max_duration_s: float
) -> tuple[np.ndarray, np.ndarray, PassedOver]:
    """Frames (N, D) of these utterances, the word (N,) of each, and what was passed over."""
    features_of = tokenizer_class(config.kind).features_of
    features, words, passed = [], [], PassedOver()
    for utterance, wave_N in usable_waves(manifest_path, chunk, config.sample_rate, max_duration_s, passed):
        features.append(features_of(config, wave_N))
        words.append(labels_of_frames(utterance.words or (), len(features[-1]), config.frame_rate_hz))
    if not features:
        return np.zeros((0, 0), np.float32), np.zeros(0, str), passed
    return np.concatenate(features), np.concatenate(words), passed


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
