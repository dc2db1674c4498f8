"""Thousands of damaged files among good ones: the good ones come out as ever, the damaged ones exactly once.

The shards are written by the job's own code in a process of its own, so that a crash or a hang fails the test.
"""

import multiprocessing
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import storage
from data.manifest import Utterance, write_manifest
from data.quarantine import REASONS
from data.store import TokenStore
from model.audio_tokenizers.base import fit_audio_tokenizer
from model.audio_tokenizers.kmeans_units import KMeansUnitTokenizer
from model.config import KMeansUnits
from ray_jobs.tokenize_shard import ShardTokenizer, UtteranceEncoder, plan_shards
from tests.ray_jobs.mutations import MUTATIONS, make_clips, mutate

SEED = 20261121
MUTANTS_PER_GOOD = 5
SHARD_UTTERANCES = 400
PEAK_MB = 1500  # of the process that decodes; a lying header would ask for more
TIMEOUT_S = 240
# `crash` would mean that a decoder died.
REASONS_OF_FILES = set(REASONS) - {"crash"}


def write_corpus(folder: Path, mutants: int) -> tuple[str, str]:
    """Manifests of damaged files with good ones between them, and of the good ones alone."""
    clips = make_clips(SEED, 20)
    good, mixed = [], []
    for i in range(mutants):
        if i % MUTANTS_PER_GOOD == 0:
            clip = clips[i // MUTANTS_PER_GOOD % len(clips)]
            path = f"audio/good-{i // MUTANTS_PER_GOOD:04d}.{clip.ending}"
            storage.write_bytes(folder / path, clip.content)
            good.append(Utterance(path, path, text="kept"))
            mixed.append(good[-1])
        kind, clip = mutate(clips, SEED, i)
        path = f"audio/{kind}-{i:04d}.{clip.ending}"
        storage.write_bytes(folder / path, clip.content)
        # Some manifests know the length that the file had before it was damaged.
        mixed.append(Utterance(path, path, duration=0.3 if i % 3 == 0 else None))
    manifests = str(folder / "mixed.jsonl"), str(folder / "good.jsonl")
    for manifest, utterances in zip(manifests, (mixed, good), strict=True):
        write_manifest(manifest, utterances)
    return manifests


def write_tokenizer(folder: Path) -> str:
    config = KMeansUnits(kind="kmeans_units", codebook_size=16)
    noise = np.random.default_rng(SEED).normal(0, 0.1, 4 * config.sample_rate)
    tokenizer = fit_audio_tokenizer(config, KMeansUnitTokenizer.features_of(config, noise), SEED)
    tokenizer.save(str(folder / "unit"))
    return str(folder / "unit")


def tokenize(manifest: str, tokenizer: str, folder: str) -> None:
    """Write all shards; the process' own work."""
    writer = ShardTokenizer(UtteranceEncoder(manifest, {"unit": tokenizer}, 600.0), folder)
    for plan in plan_shards(manifest, SHARD_UTTERANCES):
        writer.write(plan)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    storage.write_json(storage.join(folder, "peak.json"), {"peak_mb": peak_kb / 1024})


def run_apart(manifest: str, tokenizer: str, folder: str) -> None:
    process = multiprocessing.get_context("spawn").Process(target=tokenize, args=(manifest, tokenizer, folder))
    process.start()
    process.join(TIMEOUT_S)
    hangs = process.is_alive()
    process.kill()
    process.join()
    assert not hangs, f"not done after {TIMEOUT_S} s; what it was at lies in {folder}/attempts"
    assert process.exitcode == 0, f"died with {process.exitcode}; what it was at lies in {folder}/attempts"


def read_back(folder: str) -> tuple[dict[str, np.ndarray], list[dict[str, str]], list[str]]:
    """Codes by id, quarantine rows, and the ids of both as often as they stand there."""
    records = TokenStore.open(folder).records
    parts = [storage.read_json(storage.join(folder, "parts", name)) for name in storage.list_files(f"{folder}/parts")]
    bad = [row for part in parts for row in part["quarantine"]]
    ids = [record.id for record in records] + [row["id"] for row in bad]
    return {record.id: record.streams["unit"] for record in records}, bad, ids


def check(tmp_path: Path, mutants: int, run: Callable[[str, str, str], None]) -> None:
    mixed, good = write_corpus(tmp_path, mutants)
    tokenizer = write_tokenizer(tmp_path)
    tokenize(good, tokenizer, str(tmp_path / "clean"))
    run(mixed, tokenizer, str(tmp_path / "fuzzed"))
    expected, none_bad, _ = read_back(str(tmp_path / "clean"))
    codes, bad, ids = read_back(str(tmp_path / "fuzzed"))
    assert not none_bad, "the good files are not good"
    lost = [name for name in expected if not np.array_equal(codes.get(name), expected[name])]
    assert not lost, f"good files lost or changed: {lost}"
    manifest_ids = [row["id"] for row in storage.read_jsonl(mixed)]
    assert Counter(ids) == Counter(manifest_ids)
    assert {row["reason"] for row in bad} <= REASONS_OF_FILES
    assert all(row["detail"] for row in bad)
    assert all(codes[name].size for name in codes)
    # The damage is damage: each of these kinds makes some file unusable, and none all of them.
    damaged = Counter(row["id"].split("/")[1].split("-")[0] for row in bad)
    assert {"truncated", "lie", "header_bits", "grafted"} <= set(damaged)
    assert all(damaged[kind] < mutants / len(MUTATIONS) for kind in MUTATIONS)


def test_every_mutation_is_a_function_of_its_seed():
    clips = make_clips(SEED, 10)
    assert [mutate(clips, 1, i) for i in range(20)] == [mutate(make_clips(SEED, 10), 1, i) for i in range(20)]
    assert {mutate(clips, 1, i)[0] for i in range(20)} == set(MUTATIONS)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_hundred_damaged_files_lose_no_good_one(tmp_path):
    check(tmp_path, 100, tokenize)


@pytest.mark.slow
def test_two_thousand_damaged_files_lose_no_good_one(tmp_path):
    check(tmp_path, 2000, run_apart)
    assert storage.read_json(tmp_path / "fuzzed/peak.json")["peak_mb"] < PEAK_MB
