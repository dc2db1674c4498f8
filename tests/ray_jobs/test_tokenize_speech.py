"""tokenize_speech on a Ray cluster: every utterance once, whatever is corrupt, crashes or is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data import storage
from data.errors import InputError, TooManyBadError
from data.run_folder import RunFolder
from data.store import TokenStore
from ray_jobs.job import Run
from ray_jobs.tokenize_graph import tokenize_shards
from ray_jobs.tokenize_shard import ShardTokenizer, UtteranceEncoder, plan_shards
from ray_jobs.tokenize_speech import JOB, work
from tests.ray_jobs.tiny_audio import ROOT, SegfaultingDecoder, contents, make_inputs, tokenize_recipe


@pytest.mark.ray
def test_a_run_is_complete_and_a_second_one_changes_and_redoes_nothing(ray_cluster, tmp_path, monkeypatch):
    inputs = make_inputs(tmp_path)
    folder = RunFolder(str(tmp_path / "run"), "x")
    work(Run(tokenize_recipe(max_bad_fraction=0.1), folder, inputs))
    assert len(TokenStore.open(folder.path)) == 11
    assert [row["id"] for row in storage.read_jsonl(folder.file("quarantine.jsonl"))] == ["u0"]
    summary = storage.read_json(folder.file("summary.json"))
    assert (summary["utterances"], summary["quarantined"], summary["codes"]) == (11, 1, {"unit": 55})
    before = contents(tmp_path / "run")
    # One lost shard is written again, with the same bytes; the others are not touched.
    lost = "shards/part-00001.parquet"
    kept = (tmp_path / "run/shards/part-00000.parquet").stat().st_mtime_ns
    (tmp_path / "run" / lost).unlink()
    work(Run(tokenize_recipe(max_bad_fraction=0.1), folder, inputs))
    assert contents(tmp_path / "run") == before
    assert (tmp_path / "run/shards/part-00000.parquet").stat().st_mtime_ns == kept
    monkeypatch.setattr(
        "ray_jobs.tokenize_speech.tokenize_shards", lambda *args, **more: pytest.fail("nothing was left to do")
    )
    work(Run(tokenize_recipe(max_bad_fraction=0.1), folder, inputs))


@pytest.mark.ray
def test_too_many_bad_files_fail_the_job_after_everything_is_written(ray_cluster, tmp_path):
    inputs = make_inputs(tmp_path, utterances=4, bad=3)
    folder = RunFolder(str(tmp_path / "run"), "x")
    with pytest.raises(TooManyBadError, match=r"3 of 4 utterances \(75.0%\).*max_bad_fraction=0.05"):
        work(Run(tokenize_recipe(), folder, inputs))
    assert len(TokenStore.open(folder.path)) == 1
    assert len(list(storage.read_jsonl(folder.file("quarantine.jsonl")))) == 3
    work(Run(tokenize_recipe(max_bad_fraction=0.8), folder, inputs))


def test_rows_that_prepare_could_not_read_count_as_bad(tmp_path, monkeypatch):
    inputs = make_inputs(tmp_path, utterances=2, bad=0)
    rows = [{"id": str(i), "audio_filepath": "", "reason": "bad_row", "detail": ""} for i in range(2)]
    storage.write_jsonl(tmp_path / "prepare/quarantine.jsonl", rows)
    folder = RunFolder(str(tmp_path / "run"), "x")
    part = {"utterances": 2, "seconds": 0.4, "codes": {"unit": 10}, "quarantine": []}
    storage.write_json(folder.file("parts/part-00000.json"), part)
    storage.write_text(folder.file("shards/part-00000.parquet"), "")
    with pytest.raises(TooManyBadError, match="2 of 4"):
        work(Run(tokenize_recipe(), folder, inputs))


def test_an_empty_manifest_is_an_input_error(tmp_path):
    inputs = make_inputs(tmp_path, utterances=0, bad=0)
    with pytest.raises(InputError, match="holds no utterance"):
        work(Run(tokenize_recipe(), RunFolder(str(tmp_path / "run"), "x"), inputs))


def test_the_id_hangs_on_what_changes_the_store():
    assert JOB.id(tokenize_recipe()) == JOB.id(tokenize_recipe(num_workers=7, max_bad_fraction=0.5))
    assert JOB.id(tokenize_recipe()) != JOB.id(tokenize_recipe(shard_utterances=6))


@pytest.mark.slow
@pytest.mark.ray
def test_a_crashing_decoder_kills_one_actor_and_not_the_job(ray_cluster, tmp_path):
    inputs = make_inputs(tmp_path)
    manifest, out = inputs["prepare"] + "/manifest.jsonl", str(tmp_path / "out")
    tokenizers = {"unit": inputs["fit_tokenizer"] + "/unit"}
    tokenize_shards(
        list(plan_shards(manifest, 4)), manifest, tokenizers, out, tokenize_recipe().tokenize, SegfaultingDecoder
    )
    assert [record.id for record in TokenStore.open(out).records] == [f"u{i}" for i in range(12) if i not in (0, 5)]
    part = storage.read_json(out + "/parts/part-00001.json")
    assert [(row["id"], row["reason"]) for row in part["quarantine"]] == [("u5", "crash")]


@pytest.mark.slow
def test_a_job_killed_on_its_way_ends_in_the_same_bytes(tmp_path):
    make_inputs(tmp_path, utterances=60, bad=1, seconds=4.0)
    manifest = tmp_path / "prepare/manifest.jsonl"
    killed = start_job(tmp_path / "b", manifest)
    shards = await_shards(tmp_path / "b", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    stamps = {path: path.stat().st_mtime_ns for path in shards}
    assert not list((tmp_path / "b").glob("tokenize_speech-*/_SUCCESS"))
    assert start_job(tmp_path / "b", manifest).wait(timeout=240) == 0
    assert {path: path.stat().st_mtime_ns for path in shards} == stamps
    assert sum(1 for _ in (tmp_path / "b").glob("tokenize_speech-*/shards/part-*")) == 30
    (job,), (prepared,), (fitted,) = (
        (tmp_path / "b").glob(f"{name}-*") for name in ("tokenize_speech", "prepare", "fit_tokenizer")
    )
    source = str(prepared / "manifest.jsonl")
    undisturbed = ShardTokenizer(UtteranceEncoder(source, {"unit": str(fitted / "unit")}, 600.0), str(tmp_path / "a"))
    for plan in plan_shards(source, 2):
        undisturbed.write(plan)
    for name, expected in contents(tmp_path / "a").items():
        assert (job / name).read_bytes() == expected, name
    assert len(TokenStore.open(str(job))) == 59


def start_job(runs: Path, manifest: Path) -> subprocess.Popen:
    recipe_path = runs.with_suffix(".yaml")
    text = f"""
runs_dir: {runs}
corpus: {{kind: manifest, manifest: {manifest}}}
tokenizers: {{unit: {{kind: kmeans_units, codebook_size: 8, iterations: 3}}}}
tokenize: {{shard_utterances: 2, num_workers: 1, max_bad_fraction: 0.2}}
grammar: {{templates: {{unit_lm: "[lm] | {{unit}} [eos]"}}, groups: {{lm: [unit_lm]}}}}
train: {{phases: [{{name: only, steps_fraction: 1.0, weights: {{lm: 1.0}}}}]}}
"""
    storage.write_text(recipe_path, text)
    command = [sys.executable, "-m", "ray_jobs.tokenize_speech", str(recipe_path)]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)


def await_shards(runs: Path, job: subprocess.Popen) -> list[Path]:
    """The shards that stand when the job has just written some; it must still be running then."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        shards = list(runs.glob("tokenize_speech-*/shards/part-*.parquet"))
        if shards:
            assert job.poll() is None, "the job was over before it could be killed"
            return shards
        time.sleep(0.002)
    raise AssertionError("no shard within 120 s")
