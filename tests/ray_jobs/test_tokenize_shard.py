"""Shards of a manifest: cut the same way each time, written whole, with bad files set aside."""

import os
from pathlib import Path

import numpy as np
import pytest

from data import storage
from data.audio import write_wav
from data.manifest import Utterance, write_manifest
from data.store import TokenStore
from model.audio_tokenizers.base import fit_audio_tokenizer
from model.audio_tokenizers.kmeans_units import KMeansUnitTokenizer
from model.audio_tokenizers.residual_kmeans import ResidualKMeansTokenizer
from model.config import KMeansUnits, ResidualKMeans
from ray_jobs.tokenize_shard import ShardTokenizer, UtteranceEncoder, plan_shards, read_shard

RATE = 16000


def make_corpus(folder: Path, utterances: int = 7) -> tuple[str, dict[str, str]]:
    """A manifest of noise, its fourth file corrupt and its last one music, and two tokenizers."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(utterances):
        wave = rng.normal(0, 0.1, 1600 * (i + 1)).astype(np.float32)
        write_wav(str(folder / f"audio/{i}.wav"), wave, RATE)
        kind = "music" if i == utterances - 1 else "speech"
        rows.append(Utterance(f"u{i}", f"audio/{i}.wav", 0.1 * (i + 1), text=f"word {i} ü", kind=kind))
    (folder / "audio/3.wav").write_bytes(b"not audio")
    manifest = str(folder / "manifest.jsonl")
    write_manifest(manifest, rows)
    units = KMeansUnits(kind="kmeans_units", codebook_size=4)
    music = ResidualKMeans(kind="residual_kmeans", codebook_size=4, num_codebooks=2)
    fit_audio_tokenizer(units, KMeansUnitTokenizer.features_of(units, wave), 1).save(str(folder / "unit"))
    fit_audio_tokenizer(music, ResidualKMeansTokenizer.features_of(music, wave), 1).save(str(folder / "music"))
    return manifest, {"unit": str(folder / "unit"), "music": str(folder / "music")}


class KillingEncoder(UtteranceEncoder):
    """Dies of one utterance, as a decoder with a bug would."""

    def encode(self, utterance):
        if utterance.id == "u1":
            os._exit(1)
        return super().encode(utterance)


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path)


def test_shards_cover_the_manifest_once_in_order(corpus):
    plans = list(plan_shards(corpus[0], 3))
    assert [plan.name for plan in plans] == ["part-00000", "part-00001", "part-00002"]
    ids = [[utterance.id for utterance in read_shard(corpus[0], plan)] for plan in plans]
    assert ids == [["u0", "u1", "u2"], ["u3", "u4", "u5"], ["u6"]]
    assert sum(plan.seconds for plan in plans) == pytest.approx(2.8)


def test_a_corrupt_file_is_quarantined_and_the_rest_goes_on(corpus, tmp_path):
    manifest, tokenizers = corpus
    tokenizer = ShardTokenizer(UtteranceEncoder(manifest, tokenizers, 600.0), str(tmp_path / "out"))
    parts = [tokenizer.write(plan) for plan in plan_shards(manifest, 4)]
    assert [part["utterances"] for part in parts] == [3, 3]
    assert [row["id"] for part in parts for row in part["quarantine"]] == ["u3"]
    assert set(parts[0]["quarantine"][0]) == {"id", "audio_filepath", "reason", "detail"}
    records = TokenStore.open(str(tmp_path / "out")).records
    assert [record.id for record in records] == ["u0", "u1", "u2", "u4", "u5", "u6"]
    assert set(records[0].streams) == {"unit"}
    assert records[-1].streams["music"].size == 2 * 18  # 0.7 s are 18 frames of two codes
    assert records[0].text == "word 0 ü"
    assert records[0].duration_s == pytest.approx(0.1)


def test_a_clip_shorter_than_a_window_passes(corpus, tmp_path):
    manifest, tokenizers = corpus
    write_wav(str(tmp_path / "audio/0.wav"), np.zeros(3, np.float32), RATE)
    encoder = UtteranceEncoder(manifest, tokenizers, 600.0)
    record = encoder.encode(read_shard(manifest, next(plan_shards(manifest, 1)))[0])
    assert record.streams["unit"].size == 1


def test_a_shard_begun_before_gives_the_same_bytes(corpus, tmp_path):
    manifest, tokenizers = corpus
    plan = next(plan_shards(manifest, 7))
    for name in ("undisturbed", "begun"):
        if name == "begun":
            storage.write_text(tmp_path / name / "attempts/part-00000", "begun\n")
        ShardTokenizer(UtteranceEncoder(manifest, tokenizers, 600.0), str(tmp_path / name)).write(plan)
    for file in ("shards/part-00000.parquet", "parts/part-00000.json"):
        assert (tmp_path / "undisturbed" / file).read_bytes() == (tmp_path / "begun" / file).read_bytes()
    assert storage.list_files(tmp_path / "begun/attempts") == []


@pytest.mark.slow
def test_a_file_that_kills_its_decoder_is_quarantined_at_the_second_attempt(corpus, tmp_path):
    manifest, tokenizers = corpus
    storage.write_text(tmp_path / "out/attempts/part-00000", "begun\n")
    part = ShardTokenizer(KillingEncoder(manifest, tokenizers, 600.0), str(tmp_path / "out")).write(
        next(plan_shards(manifest, 7))
    )
    assert [(row["id"], row["reason"]) for row in part["quarantine"]] == [("u1", "crash"), ("u3", "not_audio")]
    assert part["utterances"] == 5
