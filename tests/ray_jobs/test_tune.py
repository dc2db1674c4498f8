"""The mixture search, from its points to the file that training reads."""

import pytest
import yaml

from data import storage
from data.frozen import result_fields
from data.run_folder import RunFolder
from ray_jobs.job import Run, ensure
from ray_jobs.train_parts import read_mixture
from ray_jobs.tune import JOB
from ray_jobs.tune_search import search_points, write_results
from ray_jobs.tune_trial import measures, trial_curve
from tests.ray_jobs.tiny_store import tiny_recipe, write_inputs

SMALL = ("tune.steps=4", "tune.report_every=2", "tune.num_trials=3", "tune.hidden_size=16", "tune.num_layers=1")


def test_points_name_the_groups_and_start_uniform(tmp_path):
    points = search_points(tiny_recipe(tmp_path, "tune.num_trials=6"))
    assert len(points) == 6
    assert points[0] == {"asr": 0.25, "tts": 0.25, "lm": 0.25, "music": 0.25}
    assert all(abs(sum(point.values()) - 1) < 1e-3 for point in points)


def test_a_trial_measures_every_task_of_the_groups_and_repeats_itself(tmp_path):
    recipe = tiny_recipe(tmp_path, *SMALL)
    trial = {"recipe": recipe.model_dump(mode="json"), "inputs": write_inputs(recipe)}
    trial["weights"] = {"asr": 0.4, "tts": 0.2, "lm": 0.2, "music": 0.2}
    curve = list(trial_curve(trial))
    assert [step for step, _ in curve] == [2, 4]
    assert set(curve[0][1]) == {"asr", "tts", "unit_lm", "text_lm", "text_to_music", "music_to_caption"}
    assert curve == list(trial_curve(trial))


def test_the_uniform_mixture_is_the_measure_of_the_others():
    losses = {"asr": 3.0, "tts": 1.0}
    assert measures({}, 2, losses)["objective"] == 1.0
    row = measures({"uniform": {"2": {"asr": 6.0, "tts": 1.0}}}, 2, losses)
    assert row == {"step": 2, "objective": 0.75, "loss/asr": 3.0, "loss/tts": 1.0}


def test_the_winner_becomes_a_mixture_that_training_reads(tmp_path):
    recipe = tiny_recipe(tmp_path)
    best = {"asr": 0.4, "tts": 0.3, "lm": 0.1, "music": 0.2}
    run = Run(recipe, RunFolder(str(tmp_path / "tune-1"), "1"), {})
    write_results(run, [{"weights": best, "step": 4, "objective": 0.9}])
    path = run.folder.file("mixture.yaml")
    assert yaml.safe_load(storage.read_text(path)) == {"weights": best}
    assert read_mixture(recipe.model_copy(update={"mixture": path})) == best


def test_placement_of_trials_does_not_change_the_run(tmp_path):
    one, other = (
        tiny_recipe(tmp_path, f"tune.max_concurrent_trials={n}", f"tune.workers_per_trial={n}") for n in (1, 2)
    )
    assert result_fields(one.tune) == result_fields(other.tune)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("workers", [0, 1], ids=["function", "nested"])
def test_trials_end_and_give_their_resources_back(tmp_path, workers):
    import ray

    before = ray.cluster_resources()["CPU"]
    recipe = tiny_recipe(tmp_path, *SMALL, f"tune.workers_per_trial={workers}", "tune.max_concurrent_trials=2")
    write_inputs(recipe)
    folder = ensure(JOB, recipe)
    rows = storage.read_json(folder.file("trials.json"))
    assert len(rows) == 3
    assert rows[0]["objective"] == min(row["objective"] for row in rows if row["step"] == 4)
    assert (
        abs(sum(read_mixture(recipe.model_copy(update={"mixture": folder.file("mixture.yaml")})).values()) - 1) < 1e-3
    )
    # Every CPU can be had again: nothing of the trials is left behind.
    claims = [ray.remote(num_cpus=before)(lambda: True).remote()]
    assert ray.get(claims, timeout=60) == [True]
