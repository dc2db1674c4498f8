"""Recordings of single words, and pieces of them shorter than an analysis window, become a token store. No Ray."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.corpus.config import ManifestCorpus
from data.corpus.imported import import_corpus
from data.manifest import read_manifest, write_manifest
from data.store import TokenStore
from model.audio_tokenizers.base import fit_audio_tokenizer
from model.audio_tokenizers.kmeans_units import KMeansUnitTokenizer
from model.config import KMeansUnits
from ray_jobs.tokenize_shard import ShardTokenizer, UtteranceEncoder, load_wave, plan_shards

UNITS = KMeansUnits(kind="kmeans_units", frame_rate_hz=50, codebook_size=32, iterations=3)
RATE_HZ = UNITS.frame_rate_hz
MAX_DURATION_S = 600.0
SLIVER_S = 0.004  # of an analysis window of 0.025 s


@pytest.fixture(scope="module")
def digits(real_audio: Path) -> Path:
    manifest = real_audio / "digits" / "manifest.jsonl"
    if not manifest.exists():
        pytest.skip("no recordings of digits beside the checkout")
    return manifest


def tokenize(manifest: Path, corpus: ManifestCorpus, folder: Path) -> tuple[list[dict], TokenStore]:
    """What prepare, fit_tokenizer and tokenize_speech do to a manifest: (quarantined rows, store)."""
    imported = import_corpus(corpus)
    prepared = str(folder / "manifest.jsonl")
    write_manifest(prepared, imported.utterances)
    fitted = [u for u in read_manifest(prepared) if u.split == "train"][::8]
    waves = [load_wave(prepared, utterance, UNITS.sample_rate, MAX_DURATION_S) for utterance in fitted]
    frames = np.concatenate([KMeansUnitTokenizer.features_of(UNITS, wave) for wave in waves])
    fit_audio_tokenizer(UNITS, frames, 1).save(str(folder / "unit"))
    encoder = UtteranceEncoder(prepared, {"unit": str(folder / "unit")}, MAX_DURATION_S)
    tokenizer = ShardTokenizer(encoder, str(folder / "store"))
    parts = [tokenizer.write(plan) for plan in plan_shards(prepared, 64)]
    bad = imported.quarantine + [row for part in parts for row in part["quarantine"]]
    return bad, TokenStore.open(str(folder / "store"))


def test_every_recording_passes_and_two_takes_are_held_out(digits: Path, tmp_path: Path) -> None:
    corpus = ManifestCorpus(kind="manifest", manifest=str(digits), test={"take": [8, 9]})
    bad, store = tokenize(digits, corpus, tmp_path)
    assert bad == []
    assert len(store) == len(digits.read_text().splitlines())
    held_out = [record for record in store.records if record.split == "test"]
    assert len(held_out) == len(store) // 5
    assert {record.extra["take"] for record in held_out} == {8, 9}
    assert {record.text for record in held_out} == {record.text for record in store.records}
    for record in store.records:
        assert abs(len(record.streams["unit"]) - record.duration_s * RATE_HZ) <= 1


def test_pieces_shorter_than_a_window_have_one_unit(digits: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in digits.read_text().splitlines()[:24]]
    for row in rows:
        row["audio_filepath"] = str(digits.parent / row["audio_filepath"])
    slivers = [{**row, "offset": 0.1, "duration": SLIVER_S, "id": f"sliver-{i}"} for i, row in enumerate(rows[:8])]
    manifest = tmp_path / "brought.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows + slivers))
    bad, store = tokenize(manifest, ManifestCorpus(kind="manifest", manifest=str(manifest)), tmp_path)
    assert bad == []
    assert [len(record.streams["unit"]) for record in store.records[-8:]] == [1] * 8
