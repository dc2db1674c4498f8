"""The tokenization benchmark: its workloads and its arithmetic, and that the whole of it runs."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import recordings
from benchmarks.recordings import padding_ceiling, seconds_of, speech_recordings, workload
from benchmarks.tokenize_assign import assign_over_product
from benchmarks.tokenize_job import steady_rate
from data.manifest import Utterance, write_manifest

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = (
    *("overhead_vs_encoder", "fixed_overhead_s", "speedup_vs_file_loop", "padding_ceiling", "scaling_vs_ceiling"),
    *("peak_mb_1h", "peak_mb_10h", "kmeans_vs_gemm", "wall_s"),
)


def test_a_workload_repeats_the_recordings_under_new_ids_until_it_is_long_enough():
    some = [Utterance("a", "a.wav", 2.0, split="test"), Utterance("b", "b.wav", 3.0)]
    load = workload(some, 11.0)
    assert [utterance.audio_filepath for utterance in load] == ["a.wav", "b.wav", "a.wav", "b.wav", "a.wav"]
    assert len({utterance.id for utterance in load}) == 5
    assert {utterance.split for utterance in load} == {"train"}
    assert seconds_of(load) == 12.0


def test_the_padding_ceiling_is_padded_over_real_time():
    lengths = [1.0, 3.0, 2.0, 2.0, 5.0]
    utterances = [Utterance(str(i), "x", length) for i, length in enumerate(lengths)]
    assert padding_ceiling(utterances, 2) == pytest.approx((6 + 4 + 5) / 13)
    assert padding_ceiling(utterances, 1) == 1.0


def test_one_file_of_every_recorded_utterance_is_taken_and_encodings_take_turns(tmp_path, monkeypatch):
    rows = [Utterance(f"{u}{e}", f"{u}.{e}", 1.0, extra={"utterance": u}) for u in "abc" for e in ("wav", "mp3")]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    monkeypatch.setattr(recordings, "READ_SPEECH", tmp_path / "manifest.jsonl")
    found, corpus = speech_recordings(str(tmp_path / "runs"))
    assert [Path(utterance.audio_filepath).name for utterance in found] == ["a.wav", "b.mp3", "c.wav"]
    assert all(Path(utterance.audio_filepath).is_absolute() for utterance in found)
    assert corpus.startswith("real recordings")


@pytest.mark.slow
def test_without_real_recordings_the_built_in_corpus_is_used_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "READ_SPEECH", tmp_path / "absent.jsonl")
    found, corpus = speech_recordings(str(tmp_path / "runs"))
    assert corpus.startswith("built-in corpus")
    assert found
    assert all(utterance.kind == "speech" and Path(utterance.audio_filepath).exists() for utterance in found)


def test_the_steady_state_leaves_out_how_a_run_begins_and_ends():
    one = [(100.0, 9.0), (102.0, 4.0), (104.0, 4.0)]
    assert steady_rate(one, 1) == 2.0
    # Two workers, each 2 s of audio a second: one completes at 10, 12, 14, 20, the other at 11, 13, 19.
    two = [(10.0, 5.0), (11.0, 7.0), (12.0, 4.0), (13.0, 4.0), (14.0, 4.0), (19.0, 12.0), (20.0, 12.0)]
    assert steady_rate(two, 2) == 4.0
    with pytest.raises(ValueError, match="smaller shards"):
        steady_rate(one, 2)


def test_the_ratio_of_assignment_to_product_is_a_number():
    assert 0.2 < assign_over_product(200) < 50


@pytest.mark.slow
@pytest.mark.ray
def test_a_quick_run_ends_in_one_line_with_every_number(tmp_path):
    command = [sys.executable, "-m", "benchmarks.tokenize", "--quick", "--keep", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=900)
    assert finished.returncode == 0
    result = json.loads(finished.stdout.splitlines()[-1])
    assert all(math.isfinite(result[name]) for name in NUMBERS)
    assert min(result[name] for name in NUMBERS if name != "overhead_vs_encoder") > 0
    assert result["padding_ceiling"] >= 1
    assert {"cpu", "cores", "memory_gb"} <= set(result["hardware"])
    assert {"python", "torch", "ray"} <= set(result["versions"])
    assert result["quick"] is True
    assert result["corpus"]
    assert len(result["rounds"]) == 1
