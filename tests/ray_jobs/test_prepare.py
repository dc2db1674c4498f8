import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from data.audio import load_audio, write_wav
from data.manifest import read_manifest, resolve_audio
from ray_jobs import prepare, tokenize_speech, train
from ray_jobs.prepare_part import Outcome

ROOT = Path(__file__).resolve().parent.parent.parent

TINY = {
    "kind": "builtin",
    "shard_utterances": 12,
    "speech": {
        "train_utterances": 8,
        "dev_utterances": 2,
        "test_utterances": 5,
        "tts_utterances": 3,
        "voices": ["en-US", "en-US+f2"],
        "new_voices": ["en-US+m3"],
        "new_accent_voices": ["en-GB-scotland"],
    },
    "questions": {"train_questions": 3, "dev_questions": 0, "test_questions": 2},
    "music": {"train_clips": 2, "dev_clips": 1, "test_clips": 1},
}


def recipe(folder: Path, corpus: dict[str, Any]) -> str:
    tree = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    tree.update(corpus=corpus, runs_dir=str(folder / "runs"))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def brought(folder: Path, lines: list[Any]) -> str:
    manifest = folder / "m.jsonl"
    manifest.write_text("\n".join(json.dumps(line) for line in lines))
    return recipe(folder, {"kind": "manifest", "manifest": str(manifest)})


def contents(folder: Path) -> dict[str, bytes]:
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("provenance.json", "_SUCCESS")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_two_prepares_give_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("espeakng_loader")
    path = recipe(tmp_path, TINY)
    assert prepare.main([path]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    first = contents(folder)
    assert prepare.main([path, "corpus.num_workers=1", "--fresh"]) == 0
    assert contents(folder) == first

    utterances = list(read_manifest(folder / "manifest.jsonl"))
    assert len(utterances) == 8 + 2 + 3 * 5 + 2 * (3 + 2) + 4
    for utterance in utterances:
        wave = load_audio(resolve_audio(folder / "manifest.jsonl", utterance), 16000)
        assert len(wave) / 16000 == pytest.approx(utterance.duration, abs=1e-3)
    assert json.loads(first["summary.json"])["utterances"] == len(utterances)
    assert not any(name.startswith("parts/") for name in first)


def test_a_brought_manifest_is_imported_by_its_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(str(tmp_path / "a.wav"), np.zeros(8000), 8000)
    path = brought(tmp_path, [{"audio_filepath": "a.wav", "text": "one"}, {"audio_filepath": 5}])
    assert prepare.main([path]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert [item.text for item in read_manifest(folder / "manifest.jsonl")] == ["one"]
    assert json.loads((folder / "quarantine.jsonl").read_text())["reason"] == "bad_field"
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_bytes((tmp_path / "m.jsonl").read_bytes())
    assert prepare.main([path, f"corpus.manifest={elsewhere}"]) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]) == folder


def test_a_manifest_that_is_none_exits_2(tmp_path: Path) -> None:
    path = brought(tmp_path, [{"path": "a.wav"}])
    assert prepare.main([path]) == 2
    assert prepare.main([path, "corpus.manifest=nowhere.jsonl"]) == 2


def test_a_dry_run_prints_counts_speakers_and_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([recipe(tmp_path, TINY), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "train/sentences" in shown
    assert "4 speakers, 16000 Hz" in shown
    assert "lengths           about 1." in shown
    write_wav(str(tmp_path / "a.wav"), np.zeros(8000), 8000)
    path = brought(tmp_path, [{"audio_filepath": "a.wav", "duration": 1.0, "speaker": "x"}])
    assert prepare.main([path, "--dry-run"]) == 0
    assert "1 speakers, 8000 Hz" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def corpus_of_kaldi(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for name, seconds in (("a", 1.0), ("b", 3.0), ("c", 2.0)):
        write_wav(str(folder / f"{name}.wav"), np.zeros(int(8000 * seconds)), 8000)
    (folder / "wav.scp").write_text("a a.wav\nb b.wav\nc c.wav\nd d.wav\ne e.wav\n")
    (folder / "text").write_text("a one\nb two\n")
    (folder / "utt2spk").write_text("a x\nb x\nc y\n")
    (folder / "e.wav").write_bytes(b"no audio")
    return {"kind": "kaldi", "path": str(folder)}


def test_a_brought_corpus_is_prepared_wherever_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path, corpus_of_kaldi(tmp_path / "corpus"))
    assert prepare.main([path]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    utterances = list(read_manifest(folder / "manifest.jsonl"))
    assert [(item.id, item.duration) for item in utterances] == [("a", 1.0), ("b", 3.0), ("c", 2.0)]
    bad = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in bad] == [("d", "missing"), ("e", "not_audio")]
    (tmp_path / "corpus").rename(tmp_path / "moved")
    assert prepare.main([path, f"corpus.path={tmp_path}/moved", "--fresh"]) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]) == folder
    (tmp_path / "moved" / "text").write_text("a one\nb three\n")
    assert prepare.main([path, f"corpus.path={tmp_path}/moved"]) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]) != folder


def test_decoding_finds_what_headers_hide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = corpus_of_kaldi(tmp_path / "corpus")
    write_wav(str(tmp_path / "corpus" / "long.wav"), np.random.default_rng(1).normal(0, 0.1, 400_000), 8000)
    soundfile.write(tmp_path / "corpus" / "b.flac", load_audio(str(tmp_path / "corpus" / "long.wav"), 8000), 8000)
    whole = (tmp_path / "corpus" / "b.flac").read_bytes()
    (tmp_path / "corpus" / "b.wav").write_bytes(whole[: len(whole) // 2])
    path = recipe(tmp_path, corpus)
    kept = {}
    for check in ("none", "metadata", "decode"):
        assert prepare.main([path, f"corpus.check={check}"]) == 0
        folder = Path(capsys.readouterr().out.splitlines()[-1])
        kept[check] = [item.id for item in read_manifest(folder / "manifest.jsonl")]
    assert kept == {"none": ["a", "b", "c", "d", "e"], "metadata": ["a", "b", "c"], "decode": ["a", "c"]}


def test_every_dry_run_tells_hours_lengths_and_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path, corpus_of_kaldi(tmp_path / "corpus"))
    for job in (prepare, tokenize_speech, train):
        assert job.main([path, "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert "3 utterances, 0.00 h, 2 speakers, 8000 Hz" in shown
        assert "1.00 s min, 2.00 s median, 3.00 s max" in shown
        assert "2 of 3 utterances" in shown
        assert "missing             1, e.g. d: no file at" in shown
        assert "not_audio           1, e.g. e:" in shown
    assert prepare.main([path, "tokenize.max_duration_s=2.5", "--dry-run"]) == 0
    assert "too_long            1, e.g. b: 3.0 s" in capsys.readouterr().out
    assert prepare.main([path, "tokenize.max_duration_s=2.5", "corpus.segmentation={kind: vad}", "--dry-run"]) == 0
    assert "too_long" not in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_what_is_doubtful_is_kept_listed_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "corpus").mkdir()
    for name in ("a", "b"):
        write_wav(str(tmp_path / "corpus" / f"{name}.wav"), np.zeros(16000), 16000)
    (tmp_path / "corpus" / "metadata.jsonl").write_text(
        '{"id": "a", "file_name": "a.wav", "duration": 1.0}\n{"id": "b", "file_name": "b.wav", "duration": 2.5}\n'
    )
    path = recipe(tmp_path, {"kind": "audiofolder", "path": str(tmp_path / "corpus")})
    with caplog.at_level("WARNING"):
        assert prepare.main([path]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    [row] = [json.loads(line) for line in (folder / "warnings.jsonl").read_text().splitlines()]
    assert (row["id"], row["reason"], row["detail"]) == ("b", "shorter_than_stated", "2.5 s stated, 1.000 s are there")
    assert "shorter_than_stated 1, e.g. b: 2.5 s stated" in caplog.text
    assert len(list(read_manifest(folder / "manifest.jsonl"))) == 2


def test_a_corpus_that_was_moved_is_told_with_the_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "here").mkdir()
    for number in range(3):
        write_wav(str(tmp_path / "here" / f"{number}.wav"), np.zeros(16000), 16000)
    assert prepare.main([recipe(tmp_path, {"kind": "audiofolder", "path": str(tmp_path / "here")})]) == 0
    (tmp_path / "here").rename(tmp_path / "there")
    moved = recipe(tmp_path, {"kind": "audiofolder", "path": str(tmp_path / "there")})
    assert prepare.main([moved]) == 2
    assert "--fresh" in caplog.text
    capsys.readouterr()
    assert prepare.main([moved, "--fresh"]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert all("/there/" in item.audio_filepath for item in read_manifest(folder / "manifest.jsonl"))
    assert prepare.main([moved]) == 0


def test_a_folder_that_is_no_such_corpus_exits_2(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    path = recipe(tmp_path, {"kind": "librispeech", "path": str(tmp_path / "corpus")})
    assert prepare.main([path]) == 2
    assert prepare.main([path, "--dry-run"]) == 2
    assert prepare.main([path, f"corpus.path={tmp_path}/nowhere"]) == 2


def test_a_corpus_of_which_the_steps_leave_nothing_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(str(tmp_path / "a.wav"), np.zeros(1600, np.float32), 16000)
    (tmp_path / "m.jsonl").write_text(json.dumps({"id": "a", "audio_filepath": "a.wav", "text": "no"}) + "\n")
    corpus = {"kind": "manifest", "manifest": str(tmp_path / "m.jsonl"), "segmentation": {"kind": "vad"}}
    quarantined = [{"id": "a", "audio_filepath": "a.wav", "reason": "no_speech", "detail": "none"}]
    monkeypatch.setattr(prepare, "run_steps", lambda *_: Outcome([], quarantined, []))
    recipe = str(ROOT / "configs/tiny.yaml")
    assert prepare.main([recipe, f"runs_dir={tmp_path}/runs", f"corpus={json.dumps(corpus)}"]) == 2
    (folder,) = (tmp_path / "runs").iterdir()
    assert "no_speech" in (folder / "quarantine.jsonl").read_text()
    assert not (folder / "_SUCCESS").exists()
