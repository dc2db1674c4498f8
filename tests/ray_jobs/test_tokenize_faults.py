"""Whatever dies or hangs, a tokenization ends in the bytes of an undisturbed one or in an error that says where."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data import storage
from data.store import TokenStore
from ray_jobs.tokenize_graph import tokenize_shards
from ray_jobs.tokenize_shard import ShardTokenizer, UtteranceEncoder, plan_shards
from ray_jobs.tokenize_watch import StalledError, Status
from tests.ray_jobs.tiny_audio import (
    ROOT,
    BlockingEncoder,
    BlockingOnceEncoder,
    SegfaultingDecoder,
    contents,
    make_inputs,
    tokenize_recipe,
)

pytestmark = pytest.mark.slow


def undisturbed(manifest: str, unit: str, folder: Path, size: int) -> dict[str, bytes]:
    """The files that a tokenization in this process writes, without Ray."""
    tokenizer = ShardTokenizer(UtteranceEncoder(manifest, {"unit": unit}, 600.0), str(folder))
    for plan in plan_shards(manifest, size):
        tokenizer.write(plan)
    return contents(folder)


def tokenize(folder: Path, kind: type[UtteranceEncoder], show=lambda status: None, **settings: float) -> None:
    manifest, config = str(folder / "prepare/manifest.jsonl"), tokenize_recipe(**settings).tokenize
    tokenizers = {"unit": str(folder / "fit/unit")}
    tokenize_shards(list(plan_shards(manifest, 4)), manifest, tokenizers, str(folder / "out"), config, kind, show)


@pytest.mark.ray
def test_a_crashing_decoder_kills_one_actor_and_not_the_job(ray_cluster, tmp_path):
    make_inputs(tmp_path)
    tokenize(tmp_path, SegfaultingDecoder)
    records = TokenStore.open(str(tmp_path / "out")).records
    assert [record.id for record in records] == [f"u{i}" for i in range(12) if i not in (0, 5)]
    part = storage.read_json(tmp_path / "out/parts/part-00001.json")
    assert [(row["id"], row["reason"]) for row in part["quarantine"]] == [("u5", "crash")]


@pytest.mark.ray
def test_an_actor_killed_within_a_shard_changes_nothing(ray_cluster, tmp_path):
    make_inputs(tmp_path)
    killed = []

    def kill(status: Status) -> None:
        encoding = [state.actor for _, state in status.workers if "from 'u4' on" in state.doing]
        if (tmp_path / "prepare/blocked").exists() and encoding and not killed:
            killed.append(int(re.search(r"pid (\d+)", encoding[0])[1]))
            os.kill(killed[0], signal.SIGKILL)

    tokenize(tmp_path, BlockingOnceEncoder, kill)
    assert killed
    manifest, unit = str(tmp_path / "prepare/manifest.jsonl"), str(tmp_path / "fit/unit")
    expected = undisturbed(manifest, unit, tmp_path / "alone", 4)
    assert contents(tmp_path / "out") == expected


@pytest.mark.ray
def test_a_hang_is_an_error_that_names_where_and_leaves_no_process(ray_cluster, tmp_path):
    make_inputs(tmp_path)
    before = time.monotonic()
    names = (
        r"MapBatches\(ShardActor\) has made no progress for 2\d s:\n  part-00001 on actor \w+ \(pid \d+, node \w+\): "
    )
    with pytest.raises(StalledError, match=names + r"encoding 4 utterances from 'u4' on") as caught:
        tokenize(tmp_path, BlockingEncoder, stall_s=20)
    assert time.monotonic() - before < 120
    process = int(re.search(r"pid (\d+)", str(caught.value))[1])
    deadline = time.monotonic() + 30
    while psutil.pid_exists(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(process)
    assert storage.list_files(tmp_path / "out/shards") == ["part-00000.parquet"]
    tokenize(tmp_path, UtteranceEncoder)
    manifest, unit = str(tmp_path / "prepare/manifest.jsonl"), str(tmp_path / "fit/unit")
    assert contents(tmp_path / "out") == undisturbed(manifest, unit, tmp_path / "alone", 4)


def run_cluster(what: str, folder: Path) -> dict[str, list[str]]:
    command = [sys.executable, "-m", "tests.ray_jobs.tokenize_cluster", what, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return storage.read_json(folder / "found.json")


def test_a_node_lost_within_a_shard_changes_nothing(tmp_path):
    make_inputs(tmp_path)
    found = run_cluster("lost_node", tmp_path)
    assert len(found["nodes"]) == 1
    manifest, unit = str(tmp_path / "prepare/manifest.jsonl"), str(tmp_path / "fit/unit")
    assert contents(tmp_path / "out") == undisturbed(manifest, unit, tmp_path / "alone", 3)


def test_actors_that_ask_for_a_gpu_run_where_one_is(tmp_path):
    make_inputs(tmp_path)
    found = run_cluster("gpus", tmp_path)
    assert found["seen"] == found["nodes"]
    assert len(TokenStore.open(str(tmp_path / "out"))) == 11


def test_a_job_killed_on_its_way_ends_in_the_same_bytes(tmp_path):
    make_inputs(tmp_path, utterances=60, bad=1, seconds=4.0)
    manifest = tmp_path / "prepare/manifest.jsonl"
    killed = start_job(tmp_path / "b", manifest)
    shards = await_shards(tmp_path / "b", killed)
    os.kill(killed.pid, signal.SIGKILL)  # the driver alone: everything that it started must end with it
    killed.wait()
    stamps = {path: path.stat().st_mtime_ns for path in shards}
    assert not list((tmp_path / "b").glob("tokenize_speech-*/_SUCCESS"))
    assert start_job(tmp_path / "b", manifest).wait(timeout=240) == 0
    assert {path: path.stat().st_mtime_ns for path in shards} == stamps
    assert sum(1 for _ in (tmp_path / "b").glob("tokenize_speech-*/shards/part-*")) == 30
    (job,), (prepared,), (fitted,) = (
        (tmp_path / "b").glob(f"{name}-*") for name in ("tokenize_speech", "prepare", "fit_tokenizer")
    )
    expected = undisturbed(str(prepared / "manifest.jsonl"), str(fitted / "unit"), tmp_path / "a", 2)
    assert {name: (job / name).read_bytes() for name in expected} == expected
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
