"""Trainings on Ray that lose a node, or that are stopped and go on with another number of workers."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from data import storage
from model.checkpoint_files import assemble_weights, complete_checkpoints
from ray_jobs import train
from ray_jobs.train_log import without_clock
from ray_jobs.train_loop import TrainLoop
from ray_jobs.train_metrics import merge_metrics, rows_after
from ray_jobs.train_parts import load_parts
from tests.model.process_group import run_group
from tests.ray_jobs.tiny_store import tiny_recipe, write_inputs
from tests.ray_jobs.train_process import LONG, TIMEOUT_S, kill_family, said, start, wait_for_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def _undisturbed(runs_dir: str, inputs: dict[str, str], folder: str) -> None:
    TrainLoop(load_parts(tiny_recipe(Path(runs_dir), *LONG), inputs), folder, lambda checkpoint, metrics: None).run()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two plain processes that nothing happened to."""
    runs_dir = tmp_path_factory.mktemp("plain")
    inputs = write_inputs(tiny_recipe(runs_dir, *LONG))
    run_group(2, _undisturbed, str(runs_dir), inputs, str(runs_dir / "train"))
    return runs_dir / "train"


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return assemble_weights(complete_checkpoints(str(folder / "checkpoints"))[-1])


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [without_clock(row) for row in rows]


def test_a_lost_node_is_replaced_and_nothing_is_lost(undisturbed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.ray_jobs.train_cluster", str(tmp_path), str(tmp_path / "train")]
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)
    try:
        assert process.wait(TIMEOUT_S) == 0, said(tmp_path)
    finally:
        kill_family(process)
    assert storage.read_json(tmp_path / "train" / "lost.json")["after"] < 120
    assert _plain(rows_after(str(tmp_path / "train"), 0)) == _plain(rows_after(str(undisturbed), 0))
    before, after = _weights(undisturbed), _weights(tmp_path / "train")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_sigterm_saves_and_the_run_goes_on_with_one_and_with_three_workers(undisturbed: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, *LONG)
    write_inputs(recipe)
    folder = Path(train.JOB.folder(recipe).path)
    for workers, step in ((2, 20), (1, 60)):
        process = start(tmp_path, f"train.num_workers={workers}", "train.grace_s=60")
        try:
            wait_for_checkpoint(folder, step, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 1, said(tmp_path)
        finally:
            kill_family(process)
        assert complete_checkpoints(str(folder / "checkpoints"))[-1] in said(tmp_path)
        assert "asked to stop, after step" in said(tmp_path)
    process = start(tmp_path, "train.num_workers=3", "train.num_cpus=0.5")
    try:
        assert process.wait(TIMEOUT_S) == 0, said(tmp_path)
    finally:
        kill_family(process)
    found, expected = merge_metrics(str(folder)), rows_after(str(undisturbed), 0)
    assert [row["batch_hash"] for row in found] == [row["batch_hash"] for row in expected]
    losses = [torch.tensor([row["loss"] for row in rows]) for rows in (found, expected)]
    assert torch.allclose(*losses, atol=2e-4, rtol=0)
