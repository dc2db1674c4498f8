"""One shard of a manifest becomes one shard of the token store: decode, resample and encode in one step. No Ray.

A shard is a fixed run of manifest lines, and its objects are written whole, `shards/part-NNNNN.parquet` last: where
that file is, the shard is done. So any number of kills and restarts ends in the bytes of an undisturbed run.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import fsspec
import numpy as np

from data import storage
from data.audio import AudioError, load_audio
from data.manifest import Utterance, resolve_audio
from data.store import SHARDS, Record, write_shard
from data.timing import samples_to_seconds
from model.audio_tokenizers.base import load_audio_tokenizer, stream_info, tokenizer_id

PARTS = "parts"
ATTEMPTS = "attempts"


@dataclass(frozen=True)
class ShardPlan:
    """Lines of a manifest: `size_bytes` from `start_byte`; `seconds` of audio as far as the manifest says."""

    index: int
    start_byte: int
    size_bytes: int
    seconds: float

    @property
    def name(self) -> str:
        """The shard's name without an ending."""
        return f"part-{self.index:05d}"


def plan_shards(manifest_path: str, shard_utterances: int) -> Iterator[ShardPlan]:
    """Cut a manifest into shards of `shard_utterances` lines, in one pass that keeps no line."""
    index = start = position = rows = 0
    seconds = 0.0
    with fsspec.open(manifest_path, "rb") as handle:
        for line in handle:
            position += len(line)
            if line.strip():
                rows += 1
                seconds += json.loads(line).get("duration") or 0.0
            if rows == shard_utterances:
                yield ShardPlan(index, start, position - start, seconds)
                index, start, rows, seconds = index + 1, position, 0, 0.0
    if rows:
        yield ShardPlan(index, start, position - start, seconds)


def read_shard(manifest_path: str, plan: ShardPlan) -> list[Utterance]:
    """The utterances of one shard; only its own bytes are read."""
    content = storage.read_range(manifest_path, plan.start_byte, plan.start_byte + plan.size_bytes)
    lines = content.splitlines()
    return [Utterance.from_row(json.loads(line)) for line in lines if line.strip()]


def kind_of_stream(stream: str) -> str:
    """The kind of utterance a stream is made of: `music` of music, every other of speech."""
    return "music" if stream == "music" else "speech"


def load_wave(manifest_path: str, utterance: Utterance, sample_rate: int, max_duration_s: float) -> np.ndarray:
    """float32 samples (N,) of an utterance. Raises AudioError; every job that reads a manifest passes by here."""
    path = resolve_audio(manifest_path, utterance)
    return load_audio(path, sample_rate, utterance.offset, utterance.duration, max_duration_s)


def quarantine_row(utterance: Utterance, reason: str, detail: str) -> dict[str, Any]:
    """What is written of an utterance that could not be used."""
    return {"id": utterance.id, "audio_filepath": utterance.audio_filepath, "reason": reason, "detail": detail}


class UtteranceEncoder:
    """Utterances to records, with the audio tokenizers of `folders` (stream -> folder)."""

    def __init__(self, manifest_path: str, folders: Mapping[str, str], max_duration_s: float) -> None:
        self.arguments = (manifest_path, dict(folders), max_duration_s)
        self.manifest_path = manifest_path
        self.max_duration_s = max_duration_s
        self.tokenizers = {name: load_audio_tokenizer(folder) for name, folder in folders.items()}
        self.streams = {
            name: stream_info(tokenizer, tokenizer_id(folders[name])) for name, tokenizer in self.tokenizers.items()
        }

    def encode(self, utterance: Utterance) -> Record | dict[str, Any]:
        """The record of an utterance, or its quarantine row."""
        tokenizers = {n: t for n, t in self.tokenizers.items() if kind_of_stream(n) == utterance.kind}
        rates = {tokenizer.sample_rate for tokenizer in tokenizers.values()} or {16000}
        try:
            waves = {
                rate: load_wave(self.manifest_path, utterance, rate, self.max_duration_s) for rate in sorted(rates)
            }
        except AudioError as error:
            return quarantine_row(utterance, error.reason, error.detail)
        rate = min(waves)
        return Record(
            id=utterance.id,
            text=utterance.text,
            speaker=utterance.speaker,
            lang=utterance.lang,
            duration_s=samples_to_seconds(waves[rate].size, rate),
            caption=utterance.caption,
            kind=utterance.kind,
            split=utterance.split,
            words=utterance.words,
            extra=utterance.extra,
            streams={n: t.encode([waves[t.sample_rate]])[0].reshape(-1) for n, t in tokenizers.items()},
        )


class ShardTokenizer:
    """Writes the shards of one token store."""

    def __init__(self, encoder: UtteranceEncoder, folder: str) -> None:
        self.encoder = encoder
        self.folder = folder

    def write(self, plan: ShardPlan) -> dict[str, Any]:
        """Encode and write one shard; returns its counts.

        A shard that somebody began and did not finish may hold a file that kills its decoder. Such a shard is encoded
        in a process of its own, and a file that kills that one too is quarantined as `crash`.
        """
        attempt = storage.join(self.folder, ATTEMPTS, plan.name)
        guarded = storage.exists(attempt)
        storage.write_text(attempt, "begun\n")
        utterances = read_shard(self.encoder.manifest_path, plan)
        outcomes = self._encode_guarded(utterances) if guarded else [self.encoder.encode(u) for u in utterances]
        records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
        part = {
            "utterances": len(records),
            "seconds": sum(record.duration_s for record in records),
            "codes": {name: sum(r.streams[name].size for r in records if name in r.streams) for name in self._names},
            "quarantine": [outcome for outcome in outcomes if isinstance(outcome, dict)],
        }
        storage.write_json(storage.join(self.folder, PARTS, f"{plan.name}.json"), part)
        write_shard(storage.join(self.folder, SHARDS, f"{plan.name}.parquet"), records, self.encoder.streams)
        storage.delete(attempt)
        return part

    @property
    def _names(self) -> list[str]:
        return sorted(self.encoder.streams)

    def _encode_guarded(self, utterances: list[Utterance]) -> list[Record | dict[str, Any]]:
        outcomes: list[Record | dict[str, Any]] = []
        pool: ProcessPoolExecutor | None = None
        try:
            for utterance in utterances:
                pool = pool or _guard(self.encoder)
                try:
                    outcomes.append(pool.submit(_encode_in_guard, utterance).result())
                except BrokenProcessPool:
                    pool.shutdown()
                    pool = None
                    outcomes.append(quarantine_row(utterance, "crash", "the process that decoded it died"))
        finally:
            if pool:
                pool.shutdown()
        return outcomes


_guarded_encoder: UtteranceEncoder | None = None


def _guard(encoder: UtteranceEncoder) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), _start_guard, (type(encoder), encoder.arguments))


def _start_guard(kind: type[UtteranceEncoder], arguments: tuple[Any, ...]) -> None:
    global _guarded_encoder
    _guarded_encoder = kind(*arguments)


def _encode_in_guard(utterance: Utterance) -> Record | dict[str, Any]:
    assert _guarded_encoder is not None
    return _guarded_encoder.encode(utterance)
