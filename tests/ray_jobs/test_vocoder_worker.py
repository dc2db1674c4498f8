import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import storage
from data.audio import write_wav
from data.errors import InputError
from data.manifest import Utterance, write_manifest
from data.store import Record, StreamInfo, TokenStore, write_shard
from model.audio_tokenizers.compression import fit_compression
from model.config import BpeCompression, DedupCompression
from model.vocoders.base import load_vocoder
from ray_jobs.judges_worker import fit_clap_judge, fit_recogniser_judge
from ray_jobs.vocoder_worker import choose, make_examples, train_vocoder

STREAMS = {"unit": StreamInfo(50.0, 1, 4, "t")}
FIELDS = {"steps": 2, "channels": 16, "batch_size": 2, "crop_codes": 8, "griffin_lim_iterations": 2}


def record(identity: str, length: int, **fields: object) -> Record:
    return Record(identity, streams={"unit": np.arange(length, dtype=np.int16) % 4}, **fields)  # type: ignore[arg-type]


def prepared(folder: Path, records: list[Record], seconds: float = 0.2) -> str:
    """A manifest of noise for `records`, and their token store beside it."""
    rng = np.random.default_rng(0)
    utterances = []
    for item in records:
        write_wav(str(folder / f"{item.id}.wav"), rng.normal(0, 0.1, round(seconds * 16000)), 16000)
        utterances.append(Utterance(item.id, f"{item.id}.wav", text=item.text, speaker=item.speaker, split=item.split))
    write_manifest(folder / "manifest.jsonl", utterances)
    write_shard(str(folder / "shards" / "part-00000.parquet"), records, STREAMS)
    return str(folder)


def test_codes_and_frames_have_one_length_whatever_the_clip_ends_with(tmp_path: Path) -> None:
    records = [record("a", 10, speaker="x"), record("b", 11, speaker="x"), record("c", 7, speaker="x")]
    folder = prepared(tmp_path, records)
    examples = make_examples(records, storage.join(folder, "manifest.jsonl"), 16000, 50.0)
    assert [(example.codes_T.size, len(example.mel_FM)) for example in examples] == [(10, 20), (10, 20), (7, 14)]


def test_only_training_records_with_a_speaker_are_chosen_where_there_is_one() -> None:
    train = [record("a", 3, speaker="x"), record("b", 3), record("c", 3, speaker="y", split="test")]
    assert [item.id for item in choose(train, 9, 1)] == ["a"]
    assert [item.id for item in choose(train[1:], 9, 1)] == ["b"]
    with pytest.raises(InputError, match="no training utterance"):
        choose(train[2:], 9, 1)
    many = [record(str(index), 3) for index in range(50)]
    assert choose(many, 5, 1) == choose(many[::-1], 5, 1) != choose(many, 5, 2)


def test_a_corpus_of_clips_shorter_than_a_window_makes_a_vocoder(tmp_path: Path) -> None:
    folder = prepared(tmp_path, [record("a", 1, speaker="x"), record("b", 1, speaker="y")], seconds=0.003)
    (tmp_path / "b.wav").write_bytes(b"not audio any more")
    train_vocoder(FIELDS, 1, folder, folder, str(tmp_path / "out"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["unreadable"], summary["read"]) == (1, "2 files read, 1 passed over (1 not_audio)")
    vocoder = load_vocoder(str(tmp_path / "out" / "unit"))
    assert vocoder.voices == ("x",)
    assert vocoder.synthesize({"unit": np.array([3])}, "x").size == 320


@pytest.mark.parametrize("config", [BpeCompression(kind="bpe", vocabulary_size=6), DedupCompression(kind="dedup")])
def test_compressed_units_are_expanded_to_frames_for_training_and_for_sound(tmp_path: Path, config: object) -> None:
    plain = [record("a", 10, speaker="x"), record("b", 11, speaker="x")]
    compression = fit_compression(config, [item.streams["unit"] for item in plain], 4)  # type: ignore[arg-type]
    compression.save(str(tmp_path / "tokenizers/unit/compression"))
    compressed = []
    for item in plain:
        codes, durations = compression.compress(item.streams["unit"])
        compressed.append(replace(item, streams={"unit": codes}, durations={"unit": durations}))
    folder = prepared(tmp_path, compressed)
    manifest = storage.join(folder, "manifest.jsonl")
    found = make_examples(compressed, manifest, 16000, 50.0, compression)
    for example, expected in zip(found, make_examples(plain, manifest, 16000, 50.0), strict=True):
        assert np.array_equal(example.codes_T, expected.codes_T)
    train_vocoder(FIELDS, 1, folder, folder, str(tmp_path / "out"), str(tmp_path / "tokenizers"))
    vocoder = load_vocoder(str(tmp_path / "out" / "unit"))
    assert vocoder.shape.codebook_size == 4
    codes, durations = compression.compress(np.array([0, 1, 2, 2, 3]))
    whole = vocoder.synthesize({"unit": codes, "unit_durations": durations})
    assert whole.size == 5 * 320
    pieces = vocoder.stream([{"unit": codes, "unit_durations": durations}])
    assert sum(piece.size for piece in pieces) == whole.size


def test_a_store_without_units_is_refused(tmp_path: Path) -> None:
    write_shard(str(tmp_path / "shards" / "part-00000.parquet"), [], {"music": StreamInfo(25.0, 4, 8, "m")})
    assert TokenStore.open(str(tmp_path)).streams.keys() == {"music"}
    with pytest.raises(InputError, match="vocoder to null"):
        train_vocoder(FIELDS, 1, str(tmp_path), str(tmp_path), str(tmp_path / "out"))


def test_judges_learn_from_training_texts_alone(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    texts = [record("a", 1, text="one two"), record("b", 1, text="secret word", split="test")]
    folder = prepared(tmp_path, texts)
    config = fit_recogniser_judge(folder, str(tmp_path / "judges"))
    assert config is not None
    assert config["vocabulary"] == 2
    assert "secret" not in (tmp_path / "judges" / "recogniser" / "lm.arpa").read_text()
    assert fit_recogniser_judge(prepared(tmp_path / "mute", [record("a", 1)]), str(tmp_path / "none")) is None
    assert not (tmp_path / "none").exists()


def test_the_music_judge_lands_in_its_folder(tmp_path: Path) -> None:
    quality = fit_clap_judge({"steps": 2, "batch_size": 4, "train_clips": 4}, 0.3, str(tmp_path))
    assert 0 <= quality["recall_at_1"] <= 1
    assert (tmp_path / "clap" / "model.safetensors").exists()
