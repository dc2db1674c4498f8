"""The training benchmark: its workload and its arithmetic, and that the whole of it runs."""

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import train
from benchmarks.train import padding_ceiling
from benchmarks.train_gpu import LENGTH, packed_rows
from benchmarks.train_legs import ENVIRONMENT, PaddingCollator
from benchmarks.train_memory import states_bytes
from benchmarks.train_setup import FULL, QUICK, document_lengths, make_recipe, write_inputs
from model.flops import document_sizes
from ray_jobs.train_parts import load_parts

ROOT = Path(__file__).resolve().parents[2]


def test_documents_have_the_lengths_asked_for() -> None:
    lengths = document_lengths(20_000) / 25
    assert np.median(lengths) == pytest.approx(6.0, rel=0.03)
    assert np.log(lengths[(lengths > 1) & (lengths < 30)]).std() == pytest.approx(0.7, rel=0.08)
    assert (lengths.min(), lengths.max()) == (1.0, 30.0)


def test_the_recipe_trains_on_the_documents_that_were_written(tmp_path: Path) -> None:
    recipe = make_recipe(QUICK, QUICK.model, "fp32", zero_stage=0)
    parts = load_parts(recipe, write_inputs(str(tmp_path), QUICK))
    assert len(parts.records) == QUICK.documents
    batch = parts.stream(parts.phases[0]).rows(0)
    assert batch.ids_BT.shape == (QUICK.global_rows, QUICK.sequence_length)
    assert (batch.ids_BT != parts.vocabulary.pad_id).mean() > 0.9


def test_a_padded_batch_counts_its_useful_tokens_and_learns_no_padding() -> None:
    collator = PaddingCollator(9)
    batch = collator([{"input_ids": [1, 2, 3]}, {"input_ids": [4]}])
    assert collator.tokens == 4
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["labels"].tolist() == [[1, 2, 3], [4, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert 1.8 < padding_ceiling(FULL) < 2.6


def test_the_formula_of_memory_is_the_paper_s() -> None:
    assert [states_bytes(100, stage, 2) for stage in range(4)] == [1600, 1400, 1200, 1000]
    assert [states_bytes(100, stage, 1) for stage in (0, 3)] == [1600, 2000]


def test_the_gpu_s_rows_are_packed_documents() -> None:
    batch = packed_rows(4, 0)
    tokens, squares = document_sizes(batch, 0)
    assert 0.95 * 4 * LENGTH < tokens <= 4 * LENGTH
    assert squares < tokens * 750
    assert torch.equal(batch.ids_BT[batch.weights_BT > 0], batch.labels_BT[batch.weights_BT > 0])


def test_the_legs_see_no_gpu_and_the_gpu_is_measured_in_the_environment_from_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)  # and is put back
    seen: dict[str, str] = {}

    def run(command: list[str], env: dict[str, str], **options: Any) -> Any:
        seen.update(env)
        return subprocess.CompletedProcess(command, 0, 'noise\n{"mfu": 0.5}\n')

    monkeypatch.setattr(train, "measure_speed", lambda folder, sizes: os.environ.update(ENVIRONMENT) or {})
    monkeypatch.setattr(train, "measure_memory", lambda sizes: {})
    monkeypatch.setattr(train, "hardware", lambda: {})
    monkeypatch.setattr(train, "git_commit", lambda: None)
    monkeypatch.setattr(train.subprocess, "run", run)
    results = io.StringIO()
    train.measure(str(tmp_path), QUICK, results)
    assert json.loads(results.getvalue())["gpu"] == {"mfu": 0.5}
    assert ENVIRONMENT["CUDA_VISIBLE_DEVICES"] == ""
    assert seen
    assert not set(ENVIRONMENT) & set(seen)


@pytest.mark.slow
def test_a_quick_run_ends_in_one_line_with_every_number(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.train", "--quick", "--keep", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=900)
    assert finished.returncode == 0
    result = json.loads(finished.stdout.splitlines()[-1])
    for name in (
        "speedup_vs_hf_trainer",
        "speedup_vs_hf_trainer_group_by_length",
        "scaling_1_to_2",
        "scaling_vs_ceiling",
    ):
        assert result[name] > 0
    assert math.isfinite(result["overhead_vs_bare_loop"])
    for name in ("zero_ratio", "peak_mb", "formula_mb"):
        assert sorted(result[name]) == ["0", "1", "2", "3"]
        assert all(value > 0 for value in result[name].values())
    assert result["quick"] is True
    assert set(result["gpu"]) & {"skipped", "mfu"}
