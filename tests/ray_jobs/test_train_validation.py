"""Held-out losses and the probe: what they say, and that the training does not notice them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from data import storage
from data.errors import InputError
from data.packing import IGNORED
from model.checkpoint_files import assemble_weights, complete_checkpoints
from model.engine import start_engine
from model.lm import build_language_model
from model.schedule import plan_phases
from model.train_step import compute_loss, target_weight, to_tensors
from ray_jobs.train_log import without_clock
from ray_jobs.train_loop import TrainLoop
from ray_jobs.train_parts import first_model, load_parts
from ray_jobs.train_validation import Validation, share_of, validation_rows
from tests.model.process_group import run_group
from tests.ray_jobs.tiny_store import tiny_recipe, write_inputs

SHORT = ("train.steps=6", "train.phases.2.lora.dropout=0.2", "train.save_every=100")
VALIDATED = ("train.validate_every=1", "train.validation_rows=3", "train.probe_utterances=2", "train.probe_tokens=12")


def _train(runs_dir: str, inputs: dict[str, str], folder: str, *overrides: str) -> None:
    parts = load_parts(tiny_recipe(Path(runs_dir), *SHORT, *overrides), inputs)
    TrainLoop(parts, folder, lambda checkpoint, metrics: None).run()


def _rows(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "metrics").glob("part-*.jsonl"))
    return [without_clock(row) for path in paths for row in storage.read_jsonl(path)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    runs_dir = tmp_path_factory.mktemp("runs")
    return runs_dir, write_inputs(tiny_recipe(runs_dir))


@pytest.mark.parametrize(
    "zero_stage", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(0, marks=pytest.mark.slow)]
)
def test_weights_and_losses_are_the_same_bits_with_validation_and_without(
    inputs: tuple[Path, dict[str, str]], tmp_path: Path, zero_stage: int
) -> None:
    """The last phase has dropout: had validation drawn a random number, or left evaluation mode on, it would show."""
    runs_dir, found = inputs
    stage = f"train.zero_stage={zero_stage}"
    for name, overrides in (("plain", ()), ("validated", VALIDATED)):
        run_group(2, _train, str(runs_dir), found, str(tmp_path / name), stage, *overrides)
    plain, validated = _rows(tmp_path / "plain"), _rows(tmp_path / "validated")
    extra = [{name: row.pop(name) for name in ("validation", "probe")} for row in validated]
    assert plain == validated
    last = [
        assemble_weights(complete_checkpoints(str(tmp_path / name / "checkpoints"))[-1])
        for name in ("plain", "validated")
    ]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
    assert set(extra[0]["validation"]) == {"unit_lm", "text_lm"}
    assert set(extra[-1]["probe"]) == {"asr", "tts"}
    assert all(0 <= score["finished"] <= 1 and score["error_rate"] >= 0 for score in extra[-1]["probe"].values())


def _validate(runs_dir: str, inputs: dict[str, str], zero_stage: int) -> dict[str, Any]:
    """What a validation finds, and how many times it says that it gets on."""
    beats: list[None] = []
    recipe = tiny_recipe(Path(runs_dir), f"train.zero_stage={zero_stage}", "phase=cross_modal", *VALIDATED)
    parts = load_parts(recipe, inputs)
    (plan,) = parts.phases
    validation = Validation(parts, plan, "cpu", lambda: first_model(parts, plan, "", None), lambda: beats.append(None))
    found = validation.after(1, start_engine(first_model(parts, plan, "", None), recipe.train, "fp32"))
    return {**found, "beats": len(beats)}


@pytest.mark.slow
def test_the_loss_does_not_depend_on_how_many_workers_take_it(inputs: tuple[Path, dict[str, str]]) -> None:
    runs_dir, folders = inputs
    parts = load_parts(tiny_recipe(runs_dir, "phase=cross_modal", *VALIDATED), folders)
    lm = build_language_model(parts.recipe.lm, parts.vocabulary, parts.recipe.seed)
    expected = {}
    for task, batch in validation_rows(parts, parts.phases[0]).items():
        rows = to_tensors(batch)
        expected[task] = compute_loss(lm, rows, target_weight(rows)).item()
    (alone,) = run_group(1, _validate, str(runs_dir), folders, 0)
    shared, _, _ = run_group(3, _validate, str(runs_dir), folders, 3)
    assert alone["validation"] == pytest.approx(expected, abs=1e-5)
    assert shared["validation"] == pytest.approx(expected, abs=1e-5)
    assert shared["probe"] == alone["probe"]
    tokens, weights = 2 * 12, len(list(lm.parameters()))
    assert weights + len(expected) < alone["beats"] <= weights + 3 * len(expected) + 2 * tokens + 1


def test_shares_hold_every_row_once_and_empty_ones_beside(inputs: tuple[Path, dict[str, str]]) -> None:
    runs_dir, folders = inputs
    parts = load_parts(tiny_recipe(runs_dir, *VALIDATED), folders)
    batch = next(iter(validation_rows(parts, parts.phases[1]).values()))
    shares = [share_of(batch, rank, 2, 2, parts.vocabulary.pad_id) for rank in range(2)]
    assert len({len(share.ids_BT) for share in shares}) == 1
    assert len(shares[0].ids_BT) % 2 == 0
    kept = [row.tobytes() for share in shares for row, labels in zip(share.ids_BT, share.labels_BT, strict=True)
            if (labels != IGNORED).any()]  # fmt: skip
    assert sorted(kept) == sorted(row.tobytes() for row in batch.ids_BT)


def test_tasks_that_a_schedule_brings_later_are_validated_too(inputs: tuple[Path, dict[str, str]]) -> None:
    runs_dir, folders = inputs
    later = "train.phases.0.weight_schedule=[{step: 2, weights: {asr: 1}}]"
    parts = load_parts(tiny_recipe(runs_dir, later), folders)
    assert set(validation_rows(parts, parts.phases[0])) == {"unit_lm", "text_lm", "asr"}


def test_bad_validation_sets_say_what_to_do(inputs: tuple[Path, dict[str, str]]) -> None:
    runs_dir, folders = inputs
    parts = load_parts(tiny_recipe(runs_dir, "train.phases.0.validation=[assr]"), folders)
    with pytest.raises(InputError, match="'assr': choose from"):
        validation_rows(parts, plan_phases(parts.recipe.train)[0])
    for record in parts.store.records:
        object.__setattr__(record, "split", "train")
    with pytest.raises(InputError, match="validate_every=0"):
        validation_rows(parts, parts.phases[1])
