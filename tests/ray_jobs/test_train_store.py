"""A training by a sidecar is the training from memory."""

from pathlib import Path

import pytest

from data import storage
from data.errors import InputError
from ray_jobs import train_store
from ray_jobs.train_parts import load_parts
from ray_jobs.train_validation import validation_rows
from tests.ray_jobs.tiny_store import tiny_recipe, write_inputs


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any store counts as large."""
    monkeypatch.setattr(train_store, "LARGE_STORE_BYTES", 0)


def test_a_small_store_has_no_sidecar(tmp_path):
    recipe = tiny_recipe(tmp_path)
    parts = load_parts(recipe, write_inputs(recipe), run_folder=str(tmp_path / "run"), measures=True)
    assert parts.lengths is None
    assert not (tmp_path / "run").exists()


def test_batches_vocabulary_and_held_out_rows_are_those_from_memory(tmp_path, large):
    recipe = tiny_recipe(tmp_path)
    inputs = write_inputs(recipe)
    theirs = load_parts(recipe, inputs)
    load_parts(recipe, inputs, run_folder=str(tmp_path / "run"), measures=True)
    ours = load_parts(recipe, inputs, run_folder=str(tmp_path / "run"))  # as a worker does
    assert ours.lengths is not None
    assert ours.vocabulary == theirs.vocabulary
    assert [record.id for record in ours.records] == [record.id for record in theirs.records]
    for plan in theirs.phases:
        streams = ours.stream(plan), theirs.stream(plan)
        for step in range(plan.steps):
            assert streams[0].batch_hash(step) == streams[1].batch_hash(step)
        held_out = validation_rows(ours, plan), validation_rows(theirs, plan)
        assert held_out[0].keys() == held_out[1].keys()
        assert all((held_out[0][task].ids_BT == held_out[1][task].ids_BT).all() for task in held_out[0])


def test_a_sidecar_is_made_once_and_again_for_another_store(tmp_path, large):
    recipe = tiny_recipe(tmp_path)
    inputs, run = write_inputs(recipe), str(tmp_path / "run")
    load_parts(recipe, inputs, run_folder=run, measures=True)
    rows = Path(run, "sidecar", "records.arrow")
    made = rows.stat().st_mtime_ns
    load_parts(recipe, inputs, run_folder=run, measures=True)
    assert rows.stat().st_mtime_ns == made
    storage.write_json(storage.join(inputs["tokenize_speech"], "_SUCCESS"), {"id": "another"})
    with pytest.raises(InputError, match="delete the folder"):
        load_parts(recipe, inputs, run_folder=run)
    load_parts(recipe, inputs, run_folder=run, measures=True)
    assert rows.stat().st_mtime_ns != made
