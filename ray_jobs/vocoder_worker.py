"""The work of train_vocoder in a process of its own: pairs of codes and frames, then the training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data import storage
from data.audio import MAX_DURATION_S
from data.durations import expand
from data.errors import InputError
from data.manifest import read_manifest
from data.quarantine import PassedOver
from data.store import Record, TokenStore
from model.audio_tokenizers.compression import FOLDER as COMPRESSION
from model.audio_tokenizers.compression import Compression, load_compression
from model.audio_tokenizers.features import frames_per_code, log_mel
from model.config import VocoderConfig
from model.vocoder_training import Example, fit_unit_mel
from ray_jobs.job import configure_logging
from ray_jobs.tokenize_plan import usable_waves

STREAM = "unit"
ONLY_VOICE = "default"


def train_vocoder(
    fields: dict[str, Any],
    seed: int,
    prepared: str,
    store: str,
    folder: str,
    tokenizers: str | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> None:
    """Write the vocoder to `folder`/unit and summary.json beside it. `fields` are those of VocoderConfig.

    A compression of the units in `tokenizers`, the folder of fit_tokenizer, becomes the vocoder's own.
    """
    configure_logging()
    config = VocoderConfig(**fields)
    tokens = TokenStore.open(store)
    if STREAM not in tokens.streams:
        raise InputError(f"the token store has streams {sorted(tokens.streams)} and no {STREAM!r}: set vocoder to null")
    info = tokens.streams[STREAM]
    chosen = choose(tokens.records, config.max_utterances, seed)
    compression = load_compression(storage.join(tokenizers, STREAM, COMPRESSION)) if tokenizers else None
    manifest = storage.join(prepared, "manifest.jsonl")
    passed = PassedOver()
    rates = (config.sample_rate, info.frame_rate_hz)
    examples = make_examples(chosen, manifest, *rates, compression, max_duration_s, passed)
    codebook_size = info.codebook_size if compression is None else compression.base_size
    vocoder, losses = fit_unit_mel(examples, config, seed, STREAM, info.frame_rate_hz, codebook_size)
    vocoder.compression = compression
    vocoder.save(storage.join(folder, STREAM))
    summary = {"utterances": len(examples), "unreadable": len(chosen) - len(examples), "read": str(passed), **losses}
    storage.write_json(storage.join(folder, "summary.json"), summary)


def choose(records: Sequence[Record], most: int, seed: int) -> list[Record]:
    """At most `most` training records with units, drawn by `seed`; those without a speaker only where none has one."""
    usable = [record for record in records if record.split == "train" and STREAM in record.streams]
    named = [record for record in usable if record.speaker]
    usable = sorted(named or usable, key=lambda record: record.id)
    if not usable:
        raise InputError("the token store holds no training utterance with units: the vocoder cannot be trained")
    drawn = np.random.default_rng(seed).permutation(len(usable))[:most]
    return [usable[index] for index in sorted(drawn)]


def make_examples(
    records: list[Record],
    manifest: str,
    sample_rate: int,
    frame_rate_hz: float,
    compression: Compression | None = None,
    max_duration_s: float = MAX_DURATION_S,
    passed: PassedOver | None = None,
) -> list[Example]:
    """One code per frame, with the log-mel frames it stands for. Audio become unreadable is counted and left out."""
    wanted = {record.id: record for record in records}
    ratio = frames_per_code(frame_rate_hz)
    utterances = (utterance for utterance in read_manifest(manifest) if utterance.id in wanted)
    waves = usable_waves(manifest, utterances, sample_rate, max_duration_s, PassedOver() if passed is None else passed)
    return [_example(wanted[u.id], wave, sample_rate, ratio, compression) for u, wave in waves]


def _example(
    record: Record, wave: np.ndarray, sample_rate: int, ratio: int, compression: Compression | None
) -> Example:
    codes_T, durations = record.streams[STREAM], record.durations.get(STREAM)
    if compression is not None:
        codes_T = compression.expand(codes_T, durations)
    elif durations is not None:
        codes_T = expand(codes_T, durations)
    codes_T = codes_T.astype(np.int64)
    mel_FM = log_mel(wave, sample_rate).astype(np.float32)
    # The two count frames from the same beginning; at the end they may differ by less than one code.
    length = min(codes_T.size, -(-len(mel_FM) // ratio))
    short = length * ratio - len(mel_FM)
    padded_FM = np.pad(mel_FM, ((0, max(short, 0)), (0, 0)), mode="edge")[: length * ratio]
    return Example(codes_T[:length], padded_FM, record.speaker or ONLY_VOICE)
