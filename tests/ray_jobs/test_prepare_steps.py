import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import NodeDiedError, OutOfMemoryError

from data import storage
from data.audio import load_audio, write_wav
from data.corpus.config import ManifestCorpus
from data.errors import InputError
from data.manifest import Utterance, read_manifest
from ray_jobs import prepare, prepare_steps
from ray_jobs.prepare_part import Outcome
from ray_jobs.prepare_steps import run_steps, step_fields
from tests.ray_jobs.test_prepare import recipe
from tests.tiny_ctc import save_tiny_ctc


def corpus(**steps: Any) -> ManifestCorpus:
    return ManifestCorpus(kind="manifest", manifest="m.jsonl", **steps)


def test_an_aligner_on_this_storage_counts_by_its_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_tiny_ctc(tmp_path / name)
    first, second = (
        step_fields(corpus(alignment={"kind": "ctc", "path": str(tmp_path / name), "num_gpus": gpus}))
        for name, gpus in (("a", 0), ("b", 1))
    )
    assert first == second
    (tmp_path / "b" / "vocab.json").write_text("{}")
    assert step_fields(corpus(alignment={"kind": "ctc", "path": str(tmp_path / "b")})) != first
    assert step_fields(corpus()) == {}


@pytest.mark.ray
def test_prepare_cuts_and_a_finished_part_is_not_done_again(
    ray_cluster: None, tmp_path: Path, real_audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = load_audio(str(real_audio / "read" / "jfk" / "jfk.wav"), 16000)
    quiet = np.zeros(16000 * 2, np.float32)
    write_wav(str(tmp_path / "a.wav"), np.concatenate([wave, quiet, wave, quiet]), 16000)
    write_wav(str(tmp_path / "b.wav"), np.zeros(16000 * 40), 16000)
    rows = [{"id": "a", "audio_filepath": "a.wav"}, {"id": "b", "audio_filepath": "b.wav"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, [*rows, {**rows[0], "id": "a-000001"}])))
    step = {"kind": "vad", "cut_above_s": 20, "max_s": 12}
    brought = {"kind": "manifest", "manifest": str(tmp_path / "m.jsonl"), "segmentation": step}
    assert prepare.main([recipe(tmp_path, brought)]) == 0
    folder = next((tmp_path / "runs").glob("prepare-*"))
    utterances = list(read_manifest(folder / "manifest.jsonl"))
    assert {utterance.extra["parent"] for utterance in utterances} == {"a", "a-000001"}
    assert all(utterance.duration is not None and utterance.duration <= 12 for utterance in utterances)
    assert len({utterance.id for utterance in utterances}) == len(utterances)
    reasons = [row["reason"] for row in storage.read_jsonl(folder / "quarantine.jsonl")]
    assert reasons == ["no_speech"]
    assert not (folder / "steps").exists()

    monkeypatch.setattr(prepare_steps, "run_part", None)  # nothing may be asked of Ray
    parts = [Utterance("x", "x.wav")]
    done = {"key": storage.hash_json([part.to_row() for part in parts]), "outcome": Outcome(parts).to_json()}
    storage.write_json(tmp_path / "steps" / "part-00000.json", done)
    assert run_steps(corpus(), parts, str(tmp_path), 60.0).utterances == parts


@pytest.mark.ray
def test_a_file_that_kills_its_reader_costs_nothing_else(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_part(arguments: tuple[Any, ...], rows: list[dict[str, Any]]) -> dict[str, Any]:
        if any(row["id"] == "bad" for row in rows):
            os._exit(1)
        return Outcome([Utterance.from_row(row) for row in rows]).to_json()

    monkeypatch.setattr(prepare_steps, "run_part", run_part)
    utterances = [Utterance(name, f"{name}.wav") for name in ("a", "bad", "c")]
    outcome = run_steps(corpus(), utterances, str(tmp_path), 60.0)
    assert [utterance.id for utterance in outcome.utterances] == ["a", "c"]
    assert [(row["id"], row["reason"]) for row in outcome.quarantine] == [("bad", "crash")]


@pytest.mark.parametrize("lost", [OutOfMemoryError("too much"), NodeDiedError("gone")])
def test_a_part_whose_process_is_gone_is_done_again_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: Exception
) -> None:
    def result(names: tuple[str, ...], *_: object) -> dict[str, Any]:
        if "bad" in names:
            raise lost
        return Outcome([Utterance(name, f"{name}.wav") for name in names]).to_json()

    monkeypatch.setattr(prepare_steps, "start_ray", lambda **options: None)
    monkeypatch.setattr(prepare_steps._Pool, "_submit", lambda pool, part: tuple(u.id for u in part))
    monkeypatch.setattr(prepare_steps, "ready_of", lambda running, *_: running)
    monkeypatch.setattr(prepare_steps, "result_of", result)
    outcome = run_steps(corpus(), [Utterance(name, f"{name}.wav") for name in ("a", "bad", "c")], str(tmp_path), 60.0)
    assert [utterance.id for utterance in outcome.utterances] == ["a", "c"]
    assert [(row["id"], row["reason"]) for row in outcome.quarantine] == [("bad", "crash")]


@pytest.mark.ray
def test_an_aligner_that_is_none_is_the_users_mistake(ray_cluster: None, tmp_path: Path) -> None:
    write_wav(str(tmp_path / "a.wav"), np.zeros(16000), 16000)
    wrong = corpus(alignment={"kind": "ctc", "path": str(tmp_path)})
    with pytest.raises(InputError, match=r"corpus\.alignment\.path"):
        run_steps(wrong, [Utterance("a", str(tmp_path / "a.wav"), text="a")], str(tmp_path), 60.0)


def test_a_segment_with_the_id_of_another_recording_is_quarantined() -> None:
    twice = Outcome([Utterance("a", "a.wav"), Utterance("a", "b.wav"), Utterance("a", "c.wav")])
    outcome = prepare_steps._without_duplicates(twice)
    assert [utterance.audio_filepath for utterance in outcome.utterances] == ["a.wav"]
    assert [row["id"] for row in outcome.quarantine] == ["a#2", "a#3"]
