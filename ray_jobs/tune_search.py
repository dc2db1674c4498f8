"""The mixture search: points of the simplex, ASHA over their trials, the table and the winner."""

import logging
import os
from typing import Any

import ray
import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from data import storage
from data.simplex import simplex_points
from ray_jobs.job import Run
from ray_jobs.recipe import Recipe
from ray_jobs.session import start_ray
from ray_jobs.tune_trial import run_nested_trial, run_trial, run_uniform

log = logging.getLogger("antiphon")


def search(run: Run) -> None:
    """Write trials.json (one row per trial, best first) and mixture.yaml.

    The uniform mixture runs first, since all others are measured against it. Only trials that ran all steps can
    win: they have seen equally many tokens.
    """
    start_ray()
    points = search_points(run.recipe)
    trial = {
        "recipe": run.recipe.model_dump(mode="json"),
        "inputs": run.inputs,
    }
    uniform = ray.get(ray.remote(num_cpus=1)(run_uniform).remote({**trial, "weights": points[0]}))
    log.info("tune: the uniform mixture has %s", _spell_losses(uniform[-1]))
    trial["uniform"] = {str(row["step"]): losses_of(row) for row in uniform}
    rows = [{"weights": points[0], **uniform[-1]}, *_run_trials(run, trial, points[1:])]
    write_results(run, sorted(rows, key=lambda row: (-row["step"], row["objective"])))


def search_points(recipe: Recipe) -> list[dict[str, float]]:
    """The mixtures tried: group -> weight, the uniform one first."""
    groups = recipe.tune.groups
    weights = simplex_points(recipe.tune.num_trials, len(groups), recipe.seed)
    return [dict(zip(groups, (round(float(w), 4) for w in row), strict=True)) for row in weights]


def losses_of(row: dict[str, Any]) -> dict[str, float]:
    """task -> held-out loss of one report."""
    return {name.removeprefix("loss/"): value for name, value in row.items() if name.startswith("loss/")}


def write_results(run: Run, rows: list[dict[str, Any]]) -> None:
    """The table, best first, and its winner."""
    storage.write_json(run.folder.file("trials.json"), rows)
    best = rows[0]
    storage.write_text(run.folder.file("mixture.yaml"), yaml.safe_dump({"weights": best["weights"]}))
    for row in rows:
        weights = ", ".join(f"{group} {weight:.2f}" for group, weight in row["weights"].items())
        log.info("tune: objective %.4f after %4d steps: %s", row["objective"], row["step"], weights)


def plan_search(recipe: Recipe) -> list[str]:
    """Lines of `--dry-run`."""
    config = recipe.tune
    tokens = config.steps * config.batch_rows * recipe.train.sequence_length
    return [
        f"tune    {config.num_trials} mixtures of {', '.join(config.groups)}, at most {tokens} tokens each",
        *(f"        {point}" for point in search_points(recipe)),
    ]


def _run_trials(run: Run, trial: dict[str, Any], points: list[dict[str, float]]) -> list[dict[str, Any]]:
    config = run.recipe.tune
    storage_path = os.path.abspath(run.folder.file("ray"))
    nested = config.workers_per_trial > 0
    if nested:
        # The controller of a trial needs next to nothing; its workers must fit beside those of the other trials.
        cpus = ray.cluster_resources()["CPU"] / (config.max_concurrent_trials * config.workers_per_trial)
        trial["resources_per_worker"] = {"CPU": min(1.0, 0.9 * cpus)}
        trial["storage_path"] = storage_path
    trainable = tune.with_parameters(run_nested_trial if nested else run_trial, trial=trial)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": 0.01 if nested else 1}),
        param_space={"weights": tune.grid_search(points)},
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="min",
            max_concurrent_trials=config.max_concurrent_trials,
            scheduler=ASHAScheduler(
                time_attr="step", max_t=config.steps, grace_period=config.report_every, reduction_factor=2
            ),
            reuse_actors=not nested,
        ),
        run_config=tune.RunConfig(name="trials", storage_path=storage_path, verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise RuntimeError(f"{results.num_errors} of {len(results)} trials failed; the first: {results.errors[0]}")
    return [_row(results[index]) for index in range(len(results))]


def _row(result: Any) -> dict[str, Any]:
    kept = ("step", "objective")
    metrics = {name: value for name, value in result.metrics.items() if name in kept or name.startswith("loss/")}
    return {"weights": result.config["weights"], **metrics}


def _spell_losses(row: dict[str, Any]) -> str:
    return ", ".join(f"{task} {loss:.3f}" for task, loss in losses_of(row).items())
