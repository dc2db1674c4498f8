"""The benchmark's arithmetic; the whole is ordinary jobs."""

import json

from benchmarks.learning_curve import RECIPE, TRAINING, curve
from ray_jobs.recipe import load_recipe


def test_thread_seconds_are_those_of_all_workers_and_of_every_interval() -> None:
    rows = [
        {"step": 1, "tokens": 100},
        {"step": 2, "tokens": 300, "tokens_per_s": 200.0},
        {"step": 3, "tokens": 100, "tokens_per_s": 50.0, "validation": {"asr": 2.5}},
        {"step": 4, "tokens": 50, "tokens_per_s": 100.0, "validation": {"asr": 1.5}},
    ]
    assert curve(rows, num_workers=2) == [
        {"step": 3, "tokens": 500, "thread_s": 8.0, "asr": 2.5},
        {"step": 4, "tokens": 550, "thread_s": 9.0, "asr": 1.5},
    ]


def test_its_recipe_is_the_demo_without_music_and_chains() -> None:
    recipe = load_recipe(RECIPE, [f"{key}={json.dumps(value)}" for key, value in TRAINING.items()])
    (phase,) = recipe.train.phases
    assert set(phase.weights) == set(recipe.eval.tasks) == {"asr", "tts"}
