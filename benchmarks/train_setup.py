"""What the training benchmark runs on: sizes, documents of speech units as a token store, and the recipe over it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import storage
from data.store import Record, StreamInfo, write_shard
from data.text_tokenizer import build_byte_words_tokenizer
from ray_jobs.recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[1]
FRAME_RATE_HZ, UNITS = 25.0, 500
MEDIAN_S, SIGMA, SHORTEST_S, LONGEST_S = 6.0, 0.7, 1.0, 30.0
TASK = "unit_lm"


@dataclass(frozen=True)
class Shape:
    """Of a Llama."""

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int


@dataclass(frozen=True)
class Sizes:
    """How much of everything. A leg does `chunk_steps` steps in each round, after `warmup_steps`."""

    model: Shape
    documents: int
    sequence_length: int
    global_rows: int
    micro_rows: int
    padded_documents: int
    warmup_steps: int
    chunk_steps: int
    rounds: int
    memory_model: Shape
    memory_tokens: int
    memory_steps: int


FULL = Sizes(Shape(256, 4, 4, 768), 6000, 1024, 8, 2, 8, 20, 5, 5, Shape(1024, 8, 16, 2816), 256, 3)
QUICK = Sizes(Shape(32, 1, 2, 64), 200, 1024, 4, 2, 8, 2, 2, 1, Shape(64, 2, 2, 128), 64, 2)


def document_lengths(count: int, seed: int = 0) -> np.ndarray:
    """Units of each document, int: lognormal seconds at 25 Hz, cut to 1 to 30 s."""
    seconds = np.random.default_rng(seed).lognormal(np.log(MEDIAN_S), SIGMA, count).clip(SHORTEST_S, LONGEST_S)
    return (seconds * FRAME_RATE_HZ).round().astype(int)


def write_inputs(folder: str, sizes: Sizes) -> dict[str, str]:
    """The folders that a training reads, by job name: random units, and a text tokenizer that no document uses."""
    rng = np.random.default_rng(1)
    records = [
        Record(f"d{index:06d}", duration_s=length / FRAME_RATE_HZ, split="train",
               streams={"unit": rng.integers(0, UNITS, length).astype(np.int16)})
        for index, length in enumerate(document_lengths(sizes.documents))
    ]  # fmt: skip
    store, tokenizer = storage.join(folder, "store"), storage.join(folder, "tokenizer")
    streams = {"unit": StreamInfo(FRAME_RATE_HZ, 1, UNITS, "none")}
    write_shard(storage.join(store, "shards", "part-00000.parquet"), records, streams)
    build_byte_words_tokenizer(("a",)).save_pretrained(storage.join(tokenizer, "text"))
    storage.write_json(storage.join(tokenizer, "unit", "config.json"), {"kind": "none"})
    return {"tokenize_speech": store, "fit_tokenizer": tokenizer}


def make_recipe(sizes: Sizes, shape: Shape, dtype: str, **train: Any) -> Recipe:
    """Units alone, in one phase of constant learning rate that outlasts the benchmark."""
    fields = {
        "steps": 1_000_000,
        "sequence_length": sizes.sequence_length,
        "global_batch_rows": sizes.global_rows,
        "micro_batch_rows": sizes.micro_rows,
        "dtype": dtype,
        "save_every": 1_000_000,
        "log_every": sizes.chunk_steps,
        "sinks": [],
        "phases": [
            {"name": "units", "steps_fraction": 1.0, "weights": {"lm": 1.0}, "lr": 1e-4, "warmup_steps": 0,
             "decay_fraction": 0.0}
        ],
        **train,
    }  # fmt: skip
    lm = {**vars(shape), "max_positions": sizes.sequence_length}
    grammar = {"templates": {TASK: "[lm] | {unit} [eos]"}, "groups": {"lm": [TASK]}}
    tokenizers = {"unit": {"kind": "kmeans_units", "codebook_size": UNITS}}
    overrides = {"vocoder": None, "lm": lm, "grammar": grammar, "tokenizers": tokenizers, "train": fields}
    return load_recipe(
        str(ROOT / "configs" / "tiny.yaml"), [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    )
