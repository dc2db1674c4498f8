"""Stores for the stream's benchmark: utterances of lognormal lengths with words, units, pitch, style and music.

Shapes: N = rows.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from data import storage
from data.rows import BATCH_ROWS
from data.store import Record, StreamInfo, row_schema, write_shard

MEDIAN_S, SIGMA, SHORTEST_S, LONGEST_S = 6.0, 0.7, 1.0, 30.0
RATE_HZ, UNITS = 25.0, 500
WORDS_PER_S = 2.5
LONGEST_MUSIC_S = 8.0
SHARD_ROWS = 10_000
STREAMS = {
    "unit": StreamInfo(RATE_HZ, 1, UNITS, "benchmark"),
    "pitch": StreamInfo(12.5, 1, 64, "benchmark"),
    "style": StreamInfo(1.0, 1, 100, "benchmark"),
    "music": StreamInfo(50.0, 4, 1024, "benchmark"),
}
UNIT_ALONE = {"unit": STREAMS["unit"]}
_ODD = 0x9E3779B97F4A7C15  # ids in no order, each once: a multiplier that is odd


def durations_s(count: int, rng: np.random.Generator) -> np.ndarray:
    """Seconds of utterances (N,): lognormal, clipped."""
    return np.clip(rng.lognormal(np.log(MEDIAN_S), SIGMA, count), SHORTEST_S, LONGEST_S)


def some_words(count: int, rng: np.random.Generator) -> list[str]:
    """Distinct made-up words of two to four syllables."""
    syllables = np.array([consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"])
    made: dict[str, None] = {}
    while len(made) < count:
        made["".join(rng.choice(syllables, rng.integers(2, 5)))] = None
    return list(made)


def full_records(count: int, words: list[str], rng: np.random.Generator) -> list[Record]:
    """Records that every format accepts some of: each fourth one leads to the next as its answer, and to the one after
    that as a rejected one; each tenth one is music."""
    lengths_s = durations_s(count, rng)
    return [_full_record(number, float(length_s), words, rng) for number, length_s in enumerate(lengths_s)]


def _full_record(number: int, length_s: float, words: list[str], rng: np.random.Generator) -> Record:
    if number % 10 == 9:
        frames = int(min(length_s, LONGEST_MUSIC_S) * 50)
        music = rng.integers(0, 1024, 4 * frames).astype(np.int16)
        return Record(_id(number), caption="a short tune", kind="music", streams={"music": music})
    spoken = rng.choice(words, max(2, round(length_s * WORDS_PER_S))).tolist()
    step_s = length_s / len(spoken)
    return Record(
        _id(number),
        " ".join(spoken),
        f"speaker{number % 8}",
        duration_s=length_s,
        words=tuple((word, i * step_s, (i + 1) * step_s) for i, word in enumerate(spoken)),
        extra={"response": _id(number + 1), "rejected": _id(number + 2)} if number % 4 == 0 else {},
        streams={
            "unit": rng.integers(0, UNITS, int(length_s * RATE_HZ)).astype(np.int16),
            "pitch": rng.integers(0, 64, int(length_s * 12.5)).astype(np.int16),
            "style": rng.integers(0, 100, max(1, int(length_s))).astype(np.int16),
        },
    )


def write_full_store(folder: str, count: int, words: list[str], rng: np.random.Generator) -> None:
    """A store of `count` records as `full_records`."""
    write_shard(storage.join(folder, "shards", "part-0.parquet"), full_records(count, words, rng), STREAMS)


def _id(number: int) -> str:
    return f"{number * _ODD % 2**64:016x}"


def write_plain_store(folder: str, count: int, words: list[str], rng: np.random.Generator) -> None:
    """A store of `count` rows with text and units, in shards."""
    for first in range(0, count, SHARD_ROWS):
        lengths_s = durations_s(min(SHARD_ROWS, count - first), rng)
        codes = [rng.integers(0, UNITS, int(length_s * RATE_HZ)).astype(np.int16) for length_s in lengths_s]
        counts = [max(1, round(length_s * WORDS_PER_S)) for length_s in lengths_s]
        drawn = iter(rng.integers(0, len(words), sum(counts)).tolist())
        texts = [" ".join([words[index] for index in islice(drawn, count)]) for count in counts]
        rows = [
            Record(_id(first + number), text, duration_s=float(length_s), streams={"unit": unit})
            for number, (text, length_s, unit) in enumerate(zip(texts, lengths_s, codes, strict=True))
        ]
        write_shard(storage.join(folder, "shards", f"part-{first // SHARD_ROWS:05d}.parquet"), rows, UNIT_ALONE)


def unit_tables(count: int, rng: np.random.Generator) -> Iterator[pa.Table]:
    """The rows of a store of `count` rows with units alone, table by table, without a Python object per code."""
    schema = row_schema(UNIT_ALONE, ())
    for first in range(0, count, BATCH_ROWS):
        size = min(BATCH_ROWS, count - first)
        lengths = (durations_s(size, rng) * RATE_HZ).astype(np.int32)
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
        codes = rng.integers(0, UNITS, int(offsets[-1]), dtype=np.int16)
        known: dict[str, Any] = {
            "id": pa.array([_id(first + number) for number in range(size)]),
            "duration_s": pa.array(lengths / RATE_HZ),
            "kind": pa.array(["speech"] * size),
            "split": pa.array(["train"] * size),
            "extra": pa.array(["{}"] * size),
            "unit": pa.ListArray.from_arrays(pa.array(offsets), pa.array(codes)),
        }
        columns = [known.get(field.name, pa.nulls(size, field.type)) for field in schema]
        yield pa.Table.from_arrays(columns, schema=schema)


def order_of_ids(count: int) -> np.ndarray:
    """Indices of rows 0 … count - 1 in the order of their ids, int32 (N,)."""
    numbers = np.arange(count, dtype=np.uint64) * np.uint64(_ODD)
    return np.argsort(numbers).astype(np.int32)
