"""How a manifest is cut into shards, and how a shard's lines become utterances and waves. No Ray.

A shard is a fixed run of manifest lines, so any worker that is given its plan reads the same utterances.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import fsspec
import numpy as np

from data import storage
from data.audio import load_audio
from data.manifest import Utterance, resolve_audio
from data.quarantine import PassedOver
from ray_jobs.tokenize_batches import AHEAD_S_OF_THREAD, decoded_ahead

RUN_UTTERANCES = 64
RUN_S = 3600.0


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
    return [Utterance.from_row(json.loads(line)) for line in content.splitlines() if line.strip()]


def kind_of_stream(stream: str) -> str:
    """The kind of utterance a stream is made of: `music` of music, every other of speech."""
    return "music" if stream == "music" else "speech"


def load_wave(manifest_path: str, utterance: Utterance, sample_rate: int, max_duration_s: float) -> np.ndarray:
    """float32 samples (N,) of an utterance. Raises AudioError; every job that reads a manifest passes by here."""
    path = resolve_audio(manifest_path, utterance)
    span = (utterance.offset, utterance.duration)
    return load_audio(path, sample_rate, *span, max_duration_s, utterance.is_whole_file)


def runs_of(utterances: Iterable[Utterance]) -> Iterator[list[Utterance]]:
    """Runs of utterances of about an hour together, as far as the manifest tells, and of no more than 64."""
    run: list[Utterance] = []
    seconds = 0.0
    for utterance in utterances:
        run.append(utterance)
        seconds += utterance.duration or 0.0
        if len(run) == RUN_UTTERANCES or seconds >= RUN_S:
            yield run
            run, seconds = [], 0.0
    if run:
        yield run


def usable_waves(
    manifest_path: str,
    utterances: Iterable[Utterance],
    sample_rate: int,
    max_duration_s: float,
    passed: PassedOver,
    threads: int = 1,
) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Utterances with their samples (N,); what tokenize_speech would quarantine is passed over and counted.

    Decoded ahead on `threads` threads, which hold a bounded length of audio, while the caller works.
    """

    def decode(utterance: Utterance) -> tuple[Utterance, np.ndarray]:
        return utterance, load_wave(manifest_path, utterance, sample_rate, max_duration_s)

    with closing(decoded_ahead(utterances, decode, threads, threads * AHEAD_S_OF_THREAD)) as decoded:
        for result in decoded:
            passed.read += 1
            if isinstance(result, dict):
                passed.reasons[result["reason"]] += 1
            else:
                yield result
