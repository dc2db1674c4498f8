"""Everything that can be wrong with a corpus, through prepare and tokenize_speech: a row with a reason for each."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import storage
from data.audio import wav_bytes
from data.errors import TooManyBadError
from data.quarantine import REASONS
from data.run_folder import RunFolder
from data.store import TokenStore
from ray_jobs import prepare
from ray_jobs.job import Run
from ray_jobs.recipe import load_recipe
from ray_jobs.tokenize_speech import work
from tests.ray_jobs.tiny_audio import RATE, ROOT, make_inputs

SECOND = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)


def write_files(folder: Path) -> dict[str, str]:
    """File -> the reason that it is quarantined for."""
    folder.mkdir(parents=True)
    whole = wav_bytes(SECOND, RATE)
    files = {
        "empty.wav": ("empty", b""),
        "header_only.wav": ("empty", whole[:44]),
        "zero_hz.wav": ("not_audio", whole[:24] + struct.pack("<I", 0) + whole[28:]),
        "three_ghz.wav": ("bad_rate", whole[:24] + struct.pack("<I", 3_000_000_000 // 2) + whole[28:]),
        "text.wav": ("not_audio", b"this is a text\n" * 99),
        "cut_header.wav": ("not_audio", whole[:20]),
    }
    for name, (_, content) in files.items():
        (folder / name).write_bytes(content)
    broken = SECOND.copy()
    broken[RATE // 2] = np.nan
    soundfile.write(folder / "nan.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(folder / "channels.wav", np.zeros((100, 64), np.float32), RATE)
    # Ten hours of silence are 200 kB.
    soundfile.write(folder / "silence.flac", np.zeros(36_000 * 1000, np.int16), 1000)
    soundfile.write(folder / "cut.flac", SECOND, RATE)
    flac = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(flac[: len(flac) // 2])
    wav = wav_bytes(SECOND, RATE)
    (folder / "cut.wav").write_bytes(wav[: len(wav) // 2])
    (folder / "lies.wav").write_bytes(wav[:40] + struct.pack("<I", RATE * 2 * 3600) + wav[44:])
    reasons = {name: reason for name, (reason, _) in files.items()}
    reasons |= {"cut.wav": "truncated", "lies.wav": "truncated"}
    reasons |= {"nan.wav": "nan", "channels.wav": "bad_channels", "silence.flac": "too_long", "gone.wav": "missing"}
    return reasons | {"cut.flac": "undecodable"}


def write_manifest_of(folder: Path, reasons: dict[str, str]) -> str:
    good = wav_bytes(SECOND, RATE)
    (folder / "audio/good.wav").write_bytes(good)
    (folder / "audio/half_the_rate.wav").write_bytes(wav_bytes(SECOND, RATE // 2))
    # A stream whose writer could not say how much follows: what does is good audio.
    (folder / "audio/stream.wav").write_bytes(good[:40] + struct.pack("<I", 2**32 - 1) + good[44:])
    rows = [{"id": "good", "audio_filepath": "audio/good.wav", "duration": 1.0, "text": "first"}]
    rows += [{"id": name, "audio_filepath": f"audio/{name}"} for name in reasons]
    rows += [
        {"id": "stream.wav", "audio_filepath": "audio/stream.wav"},
        {"id": "half_the_rate", "audio_filepath": "audio/half_the_rate.wav", "duration": 1.0},
        {"id": "first_half", "audio_filepath": "audio/good.wav", "offset": 0, "duration": 0.5},
        {"id": "good", "audio_filepath": "audio/good.wav", "text": "second"},
        {"id": "good", "audio_filepath": "audio/good.wav", "text": "third"},
        {"id": "wrong", "audio_filepath": "audio/good.wav", "duration": "long"},
        {"id": "pathless", "text": "no path"},
    ]
    lines = [json.dumps(row).encode() for row in rows]
    lines += [b"{not json", b'{"id": "latin", "audio_filepath": "audio/good.wav", "text": "caf\xe9"}']
    (folder / "manifest.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return str(folder / "manifest.jsonl")


@pytest.mark.ray
def test_whatever_is_wrong_is_a_row_with_its_reason_and_the_rest_goes_on(ray_cluster, tmp_path):
    fitted = make_inputs(tmp_path, utterances=1)["fit_tokenizer"]
    reasons = write_files(tmp_path / "corpus/audio")
    manifest = write_manifest_of(tmp_path / "corpus", reasons)
    corpus = f"corpus={{kind: manifest, manifest: {manifest}}}"
    recipe = load_recipe(str(ROOT / "configs/tiny.yaml"), [corpus, "tokenize.num_workers=1"])
    prepared = RunFolder(str(tmp_path / "prepared"), "x")
    prepare.work(Run(recipe, prepared, {}))
    folder = RunFolder(str(tmp_path / "run"), "x")
    with pytest.raises(TooManyBadError, match=r"20 of 23 .* 2 duplicate_id"):
        work(Run(recipe, folder, {"prepare": prepared.path, "fit_tokenizer": fitted}))
    found = {row["id"]: row for row in storage.read_jsonl(folder.file("quarantine.jsonl"))}
    assert all(set(row) == {"id", "audio_filepath", "reason", "detail"} and row["detail"] for row in found.values())
    expected = reasons | {
        "half_the_rate": "longer_than_stated",
        "good#2": "duplicate_id",
        "good#3": "duplicate_id",
        "wrong": "bad_field",
    }
    got = {name: row["reason"] for name, row in found.items()}
    assert {name: got.get(name) for name in expected} == expected
    assert sorted(set(got.values()) - set(expected.values())) == ["not_json"]
    assert set(got.values()) <= set(REASONS)
    records = TokenStore.open(folder.path).records
    assert [(r.id, r.text) for r in records] == [("good", "first"), ("stream.wav", None), ("first_half", None)]
    assert records[0].streams["unit"].tolist() == records[1].streams["unit"].tolist()
    summary = storage.read_json(folder.file("summary.json"))
    assert summary["quarantined"] == len(found) == sum(summary["reasons"].values())
