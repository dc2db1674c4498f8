"""After the codebook: the fit of a compression, and what the codes say about phones and words."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data import storage
from data.timing import frames_to_seconds, seconds_to_frames
from model.audio_tokenizers.base import COMPRESSION, codebook_use, load_audio_tokenizer
from model.audio_tokenizers.compression import Compression, fit_compression
from model.config import AudioTokenizerConfig, CompressibleUnits
from ray_jobs.fit_chunks import Source
from ray_jobs.fit_utterances import Encoded, encode_sample, phone_agreement, phone_spans, word_agreement
from ray_jobs.session import start_ray

log = logging.getLogger("antiphon")

LABELLED_S = 600.0  # of audio on which agreement with phones and words is measured
LOWEST_LABELLED_HZ = 10.0  # codes slower than that span several phones, and agree with none


def finish_stream(
    config: AudioTokenizerConfig, folder: str, source: Source, quality: Mapping[str, float]
) -> dict[str, float]:
    """Fit the compression that `config` asks for into `folder`, and give the quality that `quality` lacks.

    Nothing is encoded where there is nothing to fit and nothing to measure.
    """
    wanted = config.compression if isinstance(config, CompressibleUnits) else None
    tokenizer = load_audio_tokenizer(folder)
    fine = tokenizer.frame_rate_hz >= LOWEST_LABELLED_HZ
    phones = fine and any(phone_spans(utterance) for utterance in source.utterances)
    words = fine and "word_pnmi" not in quality and any(utterance.words for utterance in source.utterances)
    if tokenizer.num_codebooks != 1 or not (wanted or phones or words):
        return {}
    labelled = seconds_to_frames(LABELLED_S, tokenizer.frame_rate_hz)
    start_ray()
    started = time.monotonic()
    encoded = encode_sample(source, folder, max(labelled, getattr(wanted, "max_codes", 0)))
    if not encoded:
        return {}
    found: dict[str, float] = phone_agreement(encoded) if phones else {}
    if words:
        found |= word_agreement(encoded)
    if wanted is not None:
        sequences = [one.codes_TK[:, 0] for one in encoded]
        compression = fit_compression(wanted, sequences, tokenizer.codebook_size)
        compression.save(storage.join(folder, COMPRESSION))
        found |= compression_quality(compression, encoded, tokenizer.frame_rate_hz)
    log.info("fit_tokenizer: %d utterances encoded again in %.1f s: %s", len(encoded), time.monotonic() - started,
             ", ".join(f"{name} {value:.4g}" for name, value in found.items()))  # fmt: skip
    return found


def compression_quality(compression: Compression, encoded: Sequence[Encoded], frame_rate_hz: float) -> dict[str, float]:
    """How many codes a second are left, how many bits they need (without the durations), and how they are used."""
    compressed = [compression.compress(one.codes_TK[:, 0])[0] for one in encoded]
    codes_L = np.concatenate(compressed)
    frames = sum(len(one.codes_TK) for one in encoded)
    rate_hz = len(codes_L) / frames_to_seconds(frames, frame_rate_hz)
    use = codebook_use(codes_L, compression.codebook_size)
    figures: dict[str, Any] = {
        "size": compression.codebook_size,
        "codes_per_s": rate_hz,
        "bitrate_bps": rate_hz * float(np.log2(compression.codebook_size)),
        "entropy_bps": rate_hz * use["entropy_bits"],
        **use,
    }
    return {f"compressed_{name}": float(value) for name, value in figures.items()}
