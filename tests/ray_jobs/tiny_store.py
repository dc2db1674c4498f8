"""A token store of random codes and few words, with the folders that a training reads: no audio, no fit."""

from pathlib import Path

import numpy as np

from data import storage
from data.store import Record, StreamInfo, write_shard
from data.text_tokenizer import build_byte_words_tokenizer
from ray_jobs import fit_tokenizer, tokenize_speech
from ray_jobs.job import Job
from ray_jobs.recipe import Recipe, load_recipe

WORDS = ("one", "two", "three", "red", "blue", "green", "cat", "dog")
UNITS, CODEBOOKS, MUSIC = 30, 2, 16


def tiny_recipe(runs_dir: Path, *overrides: str) -> Recipe:
    """configs/tiny.yaml in float32 without a vocoder, its runs under `runs_dir`."""
    return load_recipe("configs/tiny.yaml", recipe_overrides(runs_dir, *overrides))


def recipe_overrides(runs_dir: Path, *overrides: str) -> list[str]:
    """The command line's part of `tiny_recipe`."""
    fixed = [f"runs_dir={runs_dir}", "vocoder=null", "train.dtype=fp32", "lm.hidden_size=32", "train.steps=16"]
    return [*fixed, "lm.num_layers=1", "train.sequence_length=128", "train.save_every=3", *overrides]


def write_inputs(recipe: Recipe, utterances: int = 60) -> dict[str, str]:
    """Finished folders of tokenize_speech and fit_tokenizer for `recipe`; their paths by job name."""
    store, tokenizer = _finished(tokenize_speech.JOB, recipe), _finished(fit_tokenizer.JOB, recipe)
    streams = {
        "unit": StreamInfo(25.0, 1, UNITS, "none"),
        "music": StreamInfo(25.0, CODEBOOKS, MUSIC, "none"),
    }
    write_shard(storage.join(store, "shards", "part-00000.parquet"), _records(utterances), streams)
    build_byte_words_tokenizer(WORDS).save_pretrained(storage.join(tokenizer, "text"))
    for name in streams:
        storage.write_json(storage.join(tokenizer, name, "config.json"), {"kind": "none"})
    return {"tokenize_speech": store, "fit_tokenizer": tokenizer}


def _finished(job: Job, recipe: Recipe) -> str:
    folder = job.folder(recipe)
    folder.begin()
    storage.write_json(folder.file("_SUCCESS"), {"id": folder.id})
    return folder.path


def _records(count: int) -> list[Record]:
    rng = np.random.default_rng(0)
    records = []
    for index in range(count):
        split = "dev" if index % 10 == 9 else "train"
        words = [str(word) for word in rng.choice(WORDS, 3)]
        codes = np.repeat(rng.integers(0, UNITS, 3), 6).astype(np.int16)
        spans = tuple((word, place * 0.24, place * 0.24 + 0.24) for place, word in enumerate(words))
        answer = Record(f"a{index}", words[-1], f"v{index % 2}", "en", 0.24, split=split, streams={"unit": codes[-6:]})
        records += [
            Record(f"s{index}", " ".join(words), f"v{index % 3}", "en", 0.72, split=split, words=spans,
                   extra={"response": answer.id}, streams={"unit": codes}),
            answer,
        ]  # fmt: skip
        if index % 3 == 0:
            music = rng.integers(0, MUSIC, 8 * CODEBOOKS).astype(np.int16)
            records.append(
                Record(f"m{index}", caption=words[0], kind="music", split=split, duration_s=0.32,
                       streams={"music": music})
            )  # fmt: skip
    return records
