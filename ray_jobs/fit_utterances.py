"""What tokenizers and compressions are fitted on when single frames do not do: whole utterances.

Shapes: F = frames of features, T = codes, D = features, K = codebooks.
"""

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from data.errors import InputError
from data.manifest import Utterance
from data.quarantine import PassedOver
from model.audio_tokenizers.base import load_audio_tokenizer, tokenizer_class
from model.audio_tokenizers.code_quality import label_agreement
from model.config import UtterancesConfig
from ray_jobs.fit_chunks import Source, over_chunks
from ray_jobs.fit_frames import labels_of_frames
from ray_jobs.session import start_ray
from ray_jobs.tokenize_plan import usable_waves

log = logging.getLogger("antiphon")

PHONES = "phones"  # the manifest's field: [[phone, start_s, end_s], …]


@dataclass(frozen=True)
class Encoded:
    """Codes (T, K) of an utterance, and the word and the phone of every frame."""

    codes_TK: np.ndarray
    words_T: np.ndarray
    phones_T: np.ndarray


def fit_on_utterances(source: Source, config: UtterancesConfig, folder: str) -> dict[str, float]:
    """Write the tokenizer that `config` describes to `folder`; returns its quality. Raises InputError for no audio."""
    start_ray(dashboard=False)
    started = time.monotonic()
    features, speakers = collect_features(source, config)
    if not features:
        raise InputError(f"audio tokenizer {config.kind}: no audio to fit it on; see the quarantine of prepare")
    collected = time.monotonic()
    tokenizer = tokenizer_class(config.kind).fit_utterances(config, features, speakers, source.seed)
    fitted = time.monotonic()
    frames = sum(len(features_FD) for features_FD in features)
    quality: dict[str, float] = {"frames": frames, **tokenizer.quality_of_utterances(features, speakers)}
    tokenizer.save(folder)
    log.info("fit_tokenizer: %s from %d frames of %d utterances: %.1f s of analysis, %.1f s of fit, %s", config.kind,
             frames, len(features), collected - started, fitted - collected, json.dumps(quality))  # fmt: skip
    return quality


def collect_features(source: Source, config: UtterancesConfig) -> tuple[list[np.ndarray], list[str | None]]:
    """Features (F, D) of whole utterances until there are config.max_frames frames, and who speaks in each."""
    features: list[np.ndarray] = []
    speakers: list[str | None] = []
    total = 0
    for features_FD, speaker in over_chunks(source, features_of_chunk, config):
        if total >= config.max_frames:
            break
        features.append(features_FD)
        speakers.append(speaker)
        total += len(features_FD)
    return features, speakers


def encode_sample(source: Source, folder: str, max_frames: int) -> list[Encoded]:
    """Utterances as the tokenizer saved in `folder` encodes them, until there are `max_frames` frames."""
    encoded: list[Encoded] = []
    total = 0
    for one in over_chunks(source, codes_of_chunk, folder, source.num_gpus):
        if total >= max_frames:
            break
        encoded.append(one)
        total += len(one.codes_TK)
    return encoded


def phone_agreement(encoded: Sequence[Encoded]) -> dict[str, float]:
    """`label_agreement` of single-codebook codes with the phones; empty without phones."""
    codes_N = np.concatenate([one.codes_TK[:, 0] for one in encoded])
    found = label_agreement(codes_N, np.concatenate([one.phones_T for one in encoded]))
    return {f"phone_{key}": value for key, value in found.items()}


def word_agreement(encoded: Sequence[Encoded]) -> dict[str, float]:
    """`label_agreement` of single-codebook codes with the words; empty without words."""
    codes_N = np.concatenate([one.codes_TK[:, 0] for one in encoded])
    found = label_agreement(codes_N, np.concatenate([one.words_T for one in encoded]))
    return {f"word_{key}": value for key, value in found.items()}


def features_of_chunk(
    chunk: list[Utterance], manifest_path: str, max_duration_s: float, config: UtterancesConfig
) -> tuple[list[tuple[np.ndarray, str | None]], PassedOver]:
    """Features (F, D) of these utterances and their speakers; files that cannot be used are passed over."""
    features_of, passed = tokenizer_class(config.kind).features_of, PassedOver()
    waves = usable_waves(manifest_path, chunk, config.sample_rate, max_duration_s, passed)
    return [(features_of(config, wave_N), utterance.speaker) for utterance, wave_N in waves], passed


def codes_of_chunk(
    chunk: list[Utterance], manifest_path: str, max_duration_s: float, folder: str
) -> tuple[list[Encoded], PassedOver]:
    """These utterances encoded; files that cannot be used are passed over."""
    tokenizer, passed = _tokenizer(folder), PassedOver()
    encoded = []
    for utterance, wave_N in usable_waves(manifest_path, chunk, tokenizer.sample_rate, max_duration_s, passed):
        (codes_TK,) = tokenizer.encode([wave_N], [utterance.speaker])
        rate_hz, frames = tokenizer.frame_rate_hz, len(codes_TK)
        words_T = labels_of_frames(utterance.words or (), frames, rate_hz)
        phones_T = labels_of_frames(phone_spans(utterance), frames, rate_hz)
        encoded.append(Encoded(codes_TK, words_T, phones_T))
    return encoded, passed


def phone_spans(utterance: Utterance) -> Sequence[Sequence[Any]]:
    """The phones of an utterance. None where the field, which a manifest may use as it likes, is of another form."""
    spans = utterance.extra.get(PHONES)
    return spans if isinstance(spans, list) and all(map(_is_span, spans)) else ()


def _is_span(span: Any) -> bool:
    match span:
        case [str(), int() | float() as start_s, int() | float() as end_s]:
            return 0 <= start_s <= end_s < math.inf
    return False


@lru_cache(maxsize=2)
def _tokenizer(folder: str) -> Any:
    return load_audio_tokenizer(folder)
