"""What becomes of a training when something fails, on plain gloo processes."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from data import storage
from model.checkpoint_files import MANIFEST, assemble_weights, complete_checkpoints, read_manifest
from ray_jobs.train import finished
from ray_jobs.train_log import without_clock
from ray_jobs.train_metrics import rows_after
from ray_jobs.train_parts import phases_to_run
from tests.model.process_group import run_group, watch_group
from tests.ray_jobs.tiny_store import tiny_recipe, write_inputs
from tests.ray_jobs.train_faults import Fault, random_kill, train_with

STALL_S = 15  # a loaded machine takes seconds to import and to build
TOLERANCE = 1e-5


class Runs:
    """Trainings of the tiny recipe: 16 steps in three phases, saved at 3, 4, 6, 9, 12, 15 and 16."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.inputs = write_inputs(tiny_recipe(runs_dir))

    def whole(self, folder: Path, world_size: int, *overrides: str) -> None:
        """Train to the end; any error fails the test."""
        run_group(world_size, train_with, str(self.runs_dir), self.inputs, str(folder), None, *overrides)

    def struck(self, folder: Path, fault: Fault, *overrides: str, world_size: int = 2) -> dict[int, str | None]:
        """How each worker ended."""
        return watch_group(world_size, train_with, str(self.runs_dir), self.inputs, str(folder), fault, *overrides)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A store to train from."""
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> Path:
    """The folder of a run of two workers that nothing happened to."""
    runs.whole(runs.runs_dir / "undisturbed", 2, "train.keep_checkpoints=100")
    return runs.runs_dir / "undisturbed"


def _steps(folder: Path) -> list[int]:
    return [read_manifest(found)["step"] for found in complete_checkpoints(str(folder / "checkpoints"))]


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [without_clock(row) for row in rows_after(str(folder), 0)]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return assemble_weights(complete_checkpoints(str(folder / "checkpoints"))[-1])


def _is_bit_equal(folder: Path, undisturbed: Path) -> None:
    assert _rows(folder) == _rows(undisturbed)
    before, after = _weights(undisturbed), _weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_a_run_killed_at_random_again_and_again_ends_with_the_same_bits(
    runs: Runs, undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    for _ in range(1 if seed == 0 else 4):
        ends = runs.struck(tmp_path, random_kill(rng.randrange(10**6), 2, 10))
        assert "gone" in ends.values() or set(ends.values()) == {None}
    runs.whole(tmp_path, 2)
    _is_bit_equal(tmp_path, undisturbed)


def test_a_loss_that_is_no_number_ends_the_run_with_step_source_and_batch(
    runs: Runs, undisturbed: Path, tmp_path: Path
) -> None:
    ends = runs.struck(tmp_path, Fault("loss is no number", 1, 8))
    row = _rows(undisturbed)[7]
    assert ends[0] is not None
    told = re.search(r"RunError: step 8: the loss became nan of (\S+) \(batch (\S+)\)", ends[0])
    assert told is not None, ends[0]
    assert told[1] in row["losses"]
    assert told[2] == row["batch_hash"]
    assert ends[1] is not None
    assert _steps(tmp_path) == [4, 6]
    runs.whole(tmp_path, 2)
    _is_bit_equal(tmp_path, undisturbed)


@pytest.mark.parametrize("kind", ["no space for its shard", pytest.param("short file limit", marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_run_with_the_folder_and_the_room_it_needs(
    runs: Runs, undisturbed: Path, tmp_path: Path, kind: str
) -> None:
    ends = runs.struck(tmp_path, Fault(kind, 1, 3 if kind.startswith("no") else 5))
    for end in ends.values():
        assert end is not None
        assert "CheckpointError: cannot save" in end
        assert "step-000006 (about 0." in end
        assert "(rank 1); the checkpoints before it are whole" in end
    assert _steps(tmp_path) == [3, 4]
    assert not (tmp_path / "checkpoints" / "step-000006").exists()
    runs.whole(tmp_path, 2)
    _is_bit_equal(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("refuses what it was given", 1, 1), "InputError: train.deepspeed: no such thing"),
        (Fault("no space for its numbers", 0, 1), r"RunError: cannot write the numbers .* No space left on device"),
        (
            Fault("no space for a phase", 0, 1),
            "RunError: cannot export phase 'adaptation' .*step-000004 is whole: make",
        ),
    ],
)
def test_what_one_worker_finds_and_no_retry_can_mend_ends_all_at_once(
    runs: Runs, tmp_path: Path, fault: Fault, says: str
) -> None:
    for end in runs.struck(tmp_path, fault).values():
        assert end is not None
        assert re.search(says, end)


def test_a_run_asked_to_stop_in_its_last_step_says_so_and_needs_no_more_training(runs: Runs, tmp_path: Path) -> None:
    for end in runs.struck(tmp_path, Fault("asked to stop", 0, 15)).values():
        assert end is not None
        assert re.search(r"RunError: asked to stop, after step 16: \S+step-000016 is saved", end)
    assert finished(str(tmp_path), phases_to_run(tiny_recipe(tmp_path)))


def test_an_asked_run_saves_and_says_where(runs: Runs, undisturbed: Path, tmp_path: Path) -> None:
    ends = runs.struck(tmp_path, Fault("asked to stop", 0, 7))
    for end in ends.values():
        assert end is not None
        assert "RunError: asked to stop, after step 8" in end
        assert "step-000008 is saved" in end
    assert _steps(tmp_path)[-1] == 8
    (tmp_path / "stop.json").unlink()
    runs.whole(tmp_path, 2)
    _is_bit_equal(tmp_path, undisturbed)


def test_a_worker_that_never_comes_is_named_by_those_that_wait_for_it(runs: Runs, tmp_path: Path) -> None:
    ends = runs.struck(tmp_path, Fault("frozen from the start", 1, 1), "train.stall_s=2")
    assert ends[0] is not None
    assert re.search(r"StalledError: no progress for \d+ s: .*rank 1 gives no sign of life, last seen nowhere", ends[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("frozen in a step", r"rank 1 gives no sign of life, last seen in '[a-z ]+' of step [45]"),
        ("hung in its data", "rank 1 is in 'waiting for its batch' of step 1"),
    ],
)
def test_a_worker_that_stops_answering_is_named_with_what_it_does(
    runs: Runs, tmp_path: Path, kind: str, says: str
) -> None:
    count = 5 if "step" in kind else 1
    ends = runs.struck(tmp_path, Fault(kind, 1, count), f"train.stall_s={STALL_S}")
    assert ends[0] is not None
    assert "StalledError" in ends[0]
    assert re.search(says, ends[0])
    assert _steps(tmp_path) == ([3, 4] if kind == "frozen in a step" else [])


@pytest.mark.parametrize(
    "damage", ["cut", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bit", "missing", "manifest"))]
)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    runs: Runs, undisturbed: Path, tmp_path: Path, damage: str
) -> None:
    for step in (12, 15):
        storage.copy_folder(undisturbed / "checkpoints" / f"step-{step:06d}", _checkpoint(tmp_path, step))
    storage.copy_folder(undisturbed / "phases", tmp_path / "phases")
    storage.copy_folder(undisturbed / "metrics", tmp_path / "metrics")
    _damage(_checkpoint(tmp_path, 15), damage)
    runs.whole(tmp_path, 2)
    assert _steps(tmp_path) == [15, 16]
    _is_bit_equal(tmp_path, undisturbed)


def test_when_no_checkpoint_is_whole_the_run_ends_and_deletes_nothing(
    runs: Runs, undisturbed: Path, tmp_path: Path
) -> None:
    storage.copy_folder(undisturbed / "checkpoints" / "step-000006", _checkpoint(tmp_path, 6))
    _damage(_checkpoint(tmp_path, 6), "bit")
    (end,) = runs.struck(tmp_path, Fault("loss is no number", 0, 1), world_size=1).values()
    assert end is not None
    assert "RunError: none of the 1 checkpoints below" in end
    assert "shard1.safetensors has another checksum" in end
    assert _steps(tmp_path) == [6]


def _checkpoint(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:06d}"


def _damage(checkpoint: Path, how: str) -> None:
    shard = checkpoint / "shard1.safetensors"
    content = bytearray(shard.read_bytes())
    if how == "missing":
        shard.unlink()
    elif how == "cut":
        shard.write_bytes(content[: len(content) // 2])
    elif how == "bit":
        content[-5] ^= 16
        shard.write_bytes(content)
    else:
        (checkpoint / MANIFEST).write_text("{")


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_run_that_changes_its_workers_twice_sees_the_same_batches_and_losses(
    runs: Runs, tmp_path: Path, zero_stage: int
) -> None:
    stage = f"train.zero_stage={zero_stage}"
    runs.whole(tmp_path / "two", 2, stage)
    for workers, last in ((2, 6), (1, 10)):
        runs.struck(
            tmp_path / "changing", Fault("asked to stop", 0, last if last == 6 else 3), stage, world_size=workers
        )
        (tmp_path / "changing" / "stop.json").unlink()
    runs.whole(tmp_path / "changing", 3, stage)
    expected, found = _rows(tmp_path / "two"), _rows(tmp_path / "changing")
    for name in ("step", "batch_hash", "tokens", "lr"):
        assert [row[name] for row in found] == [row[name] for row in expected]
    losses = [torch.tensor([row["loss"] for row in rows]) for rows in (found, expected)]
    assert torch.allclose(*losses, atol=TOLERANCE, rtol=0)
    before, after = _weights(tmp_path / "two"), _weights(tmp_path / "changing")
    assert max((before[name] - after[name]).abs().max().item() for name in before) < TOLERANCE
