"""Shards of a manifest: cut the same way each time, written whole, with bad files set aside."""

import numpy as np
import pytest

from data import storage
from data.audio import write_wav
from data.durations import deduplicate, expand
from data.errors import InputError
from data.manifest import Utterance, write_manifest
from data.store import Record, TokenStore
from ray_jobs import tokenize_encoder, tokenize_guard
from ray_jobs.tokenize_shard import ShardTokenizer, UtteranceEncoder, plan_shards, read_shard
from tests.ray_jobs.tiny_audio import (
    RATE,
    BatchTellingEncoder,
    DyingEncoder,
    SegfaultingDecoder,
    contents,
    make_corpus,
)


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path)


def write_all(encoder: UtteranceEncoder, folder, size: int = 7) -> list[dict]:
    tokenizer = ShardTokenizer(encoder, str(folder))
    return [tokenizer.write(plan) for plan in plan_shards(encoder.manifest_path, size)]


def test_shards_cover_the_manifest_once_in_order(corpus):
    plans = list(plan_shards(corpus[0], 3))
    assert [plan.name for plan in plans] == ["part-00000", "part-00001", "part-00002"]
    ids = [[utterance.id for utterance in read_shard(corpus[0], plan)] for plan in plans]
    assert ids == [["u0", "u1", "u2"], ["u3", "u4", "u5"], ["u6"]]
    assert sum(plan.seconds for plan in plans) == pytest.approx(2.8)


def test_a_corrupt_file_is_quarantined_and_the_rest_goes_on(corpus, tmp_path):
    parts = write_all(UtteranceEncoder(*corpus, 600.0), tmp_path / "out", 4)
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
    (record,) = encoder.encode([encoder.decode(read_shard(manifest, next(plan_shards(manifest, 1)))[0])])
    assert record.streams["unit"].size == 1


def test_two_ids_with_the_same_audio_both_come_out(corpus, tmp_path):
    manifest, tokenizers = corpus
    rows = [Utterance(name, "audio/2.wav", 0.3, text=name) for name in ("first", "second", "third")]
    write_manifest(manifest, rows)
    write_all(UtteranceEncoder(manifest, tokenizers, 600.0), tmp_path / "out")
    records = TokenStore.open(str(tmp_path / "out")).records
    assert [(record.id, record.text) for record in records] == [(row.id, row.id) for row in rows]
    assert len({record.streams["unit"].tobytes() for record in records}) == 1


def test_an_id_that_stands_twice_in_a_shard_is_refused(corpus, tmp_path):
    write_manifest(corpus[0], [Utterance("same", f"audio/{i}.wav", 0.1) for i in range(2)])
    with pytest.raises(InputError, match="id twice"):
        write_all(UtteranceEncoder(*corpus, 600.0), tmp_path / "out")


def test_a_shard_that_is_written_is_left_as_it_is(corpus, tmp_path, monkeypatch):
    encoder = UtteranceEncoder(*corpus, 600.0)
    written = write_all(encoder, tmp_path / "out")
    monkeypatch.setattr(encoder, "decode", lambda utterance: pytest.fail("it was done already"))
    assert write_all(encoder, tmp_path / "out") == written


def test_nothing_stands_where_a_finished_shard_would_when_encoding_fails(corpus, tmp_path, monkeypatch):
    encoder = UtteranceEncoder(*corpus, 600.0)
    monkeypatch.setattr(encoder, "encode", lambda batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_all(encoder, tmp_path / "out")
    assert storage.list_files(tmp_path / "out") == ["attempts/part-00000"]


def test_the_codes_do_not_hang_on_batches_threads_or_known_lengths(corpus, tmp_path):
    manifest, tokenizers = corpus
    write_all(UtteranceEncoder(manifest, tokenizers, 600.0), tmp_path / "one")
    write_all(UtteranceEncoder(manifest, tokenizers, 600.0, batch_seconds=0.5, threads=3), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_tokenizers_get_speakers_and_every_rate_is_decoded_once(corpus, monkeypatch):
    manifest, tokenizers = corpus
    rows = [Utterance(f"u{i}", f"audio/{i}.wav", 0.1 * (i + 1), speaker=f"s{i}") for i in range(3)]
    encoder = UtteranceEncoder(manifest, {"unit": tokenizers["unit"], "pitch": tokenizers["unit"]}, 600.0)
    real, loaded, heard = tokenize_encoder.load_wave, [], []
    monkeypatch.setattr(
        tokenize_encoder, "load_wave", lambda *args: loaded.append((args[1].id, args[2])) or real(*args)
    )
    encode = encoder.tokenizers["pitch"].encode
    monkeypatch.setattr(
        encoder.tokenizers["pitch"],
        "encode",
        lambda waves, speakers=None: heard.append((len(waves), speakers)) or encode(waves),
    )
    records = [record for batch in encoder.outcomes(rows) for record in batch]
    assert sorted(loaded) == [("u0", RATE), ("u1", RATE), ("u2", RATE)]
    assert heard == [(3, ["s2", "s1", "s0"])]
    assert all(set(record.streams) == {"unit", "pitch"} for record in records)


class Deduplication:
    compress = staticmethod(deduplicate)


def test_compressed_streams_are_stored_with_their_durations(corpus, tmp_path):
    encoder = UtteranceEncoder(*corpus, 600.0)
    write_all(encoder, tmp_path / "whole")
    encoder.tokenizers["unit"].compression = Deduplication()
    write_all(encoder, tmp_path / "short")
    whole, short = (TokenStore.open(str(tmp_path / name)).records for name in ("whole", "short"))
    for a, b in zip(whole, short, strict=True):
        if a.kind == "speech":
            assert expand(b.streams["unit"], b.durations["unit"]).tolist() == a.streams["unit"].tolist()
            assert (np.diff(b.streams["unit"]) != 0).all()
        else:
            assert a.streams["music"].tolist() == b.streams["music"].tolist()
            assert not b.durations


@pytest.fixture(params=["here", pytest.param("elsewhere", marks=pytest.mark.slow)])
def guard(request, monkeypatch):
    """The guard's process, or the same questions asked in this one."""

    class Here(tokenize_guard._Guard):
        def __enter__(self):
            tokenize_guard._start_guard(*self._start)
            return self

        def ask(self, question, *arguments):
            return question(*arguments)

    if request.param == "here":
        monkeypatch.setattr(tokenize_guard, "_Guard", Here)
        monkeypatch.setattr(tokenize_guard, "_encoder", None)


def test_a_shard_whose_worker_died_gives_the_same_batches_and_bytes(corpus, tmp_path, guard):
    storage.write_text(tmp_path / "begun/attempts/part-00000", "begun\n")
    for name in ("undisturbed", "begun"):
        write_all(BatchTellingEncoder(*corpus, 600.0, batch_seconds=0.8), tmp_path / name)
    undisturbed = contents(tmp_path / "undisturbed")
    assert contents(tmp_path / "begun") == undisturbed
    records = TokenStore.open(str(tmp_path / "undisturbed")).records
    assert len({tuple(record.streams["unit"].tolist()) for record in records[:-1]}) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dead"), [(SegfaultingDecoder, "u5"), (DyingEncoder, "u1")])
def test_a_file_that_kills_its_process_is_quarantined_at_the_second_attempt(corpus, tmp_path, kind, dead):
    storage.write_text(tmp_path / "out/attempts/part-00000", "begun\n")
    (part,) = write_all(kind(*corpus, 600.0, batch_seconds=0.5), tmp_path / "out")
    assert {(row["id"], row["reason"]) for row in part["quarantine"]} == {(dead, "crash"), ("u3", "not_audio")}
    assert part["utterances"] == 5
    assert all(
        isinstance(record, Record) and record.streams for record in TokenStore.open(str(tmp_path / "out")).records
    )
