"""One trial of the mixture search: as a plain function in its own process, or as a group of workers."""

from collections.abc import Iterator
from typing import Any

import torch

from data.stream import TokenStream, evaluation_rows
from model.config import LanguageModelConfig
from model.lm import build_language_model
from model.proxy import proxy_curve, relative_loss
from model.train_step import TensorBatch, to_tensors
from ray_jobs.recipe import Recipe
from ray_jobs.train_parts import TrainParts, load_parts, target_phase


def trial_curve(trial: dict[str, Any], rank: int = 0, world_size: int = 1) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, task -> held-out loss) of the proxy model under trial["weights"]; `trial` holds plain values alone."""
    torch.set_num_threads(1)
    recipe = Recipe.model_validate(trial["recipe"])
    config = recipe.tune
    parts = load_parts(recipe, trial["inputs"])
    stream = proxy_stream(parts, trial["weights"])
    yield from proxy_curve(
        build_language_model(proxy_shape(recipe), parts.vocabulary, recipe.seed),
        lambda step: to_tensors(stream.rows(step, rank, world_size)),
        held_out_rows(parts),
        steps=config.steps,
        report_every=config.report_every,
        lr=config.lr,
    )


def proxy_stream(parts: TrainParts, weights: dict[str, float]) -> TokenStream:
    """The batches of a trial: the target phase's, under other weights and in the trial's size."""
    config = parts.recipe.tune
    return TokenStream(
        parts.records,
        parts.grammars,
        parts.recipe.grammar.groups,
        target_phase(parts.recipe).model_copy(update={"weights": weights}),
        phase_steps=config.steps,
        sequence_length=parts.recipe.train.sequence_length,
        global_batch_rows=config.batch_rows,
        seed=parts.recipe.seed,
        streams=parts.store.streams,
        over_long=parts.recipe.train.over_long,
    )


def held_out_rows(parts: TrainParts) -> dict[str, TensorBatch]:
    """Task -> packed rows of the dev split, for every task of the groups searched over."""
    recipe = parts.recipe
    dev = parts.store.split("dev")
    tasks = [task for group in recipe.tune.groups for task in recipe.grammar.groups[group]]
    return {
        task: to_tensors(
            evaluation_rows(dev, parts.grammars[task], recipe.train.sequence_length, recipe.tune.dev_rows, recipe.seed)
        )
        for task in tasks
    }


def proxy_shape(recipe: Recipe) -> LanguageModelConfig:
    """The shape of the model that is trained for a trial: the recipe's, smaller, and made from scratch."""
    width = recipe.tune.hidden_size
    smaller = {"hidden_size": width, "num_layers": recipe.tune.num_layers, "intermediate_size": 3 * width}
    return recipe.lm.model_copy(update={"path": None, **smaller})


def measures(trial: dict[str, Any], step: int, losses: dict[str, float]) -> dict[str, Any]:
    """What a trial reports: ASHA's time and objective, and the losses behind them.

    The uniform mixture is measured first and handed to the others as trial["uniform"] (step -> task -> loss).
    """
    uniform = trial["uniform"][str(step)] if trial.get("uniform") else losses
    return {"step": step, "objective": relative_loss(losses, uniform), **{f"loss/{k}": v for k, v in losses.items()}}


def run_uniform(trial: dict[str, Any]) -> list[dict[str, Any]]:
    """Every report of the trial that the others are measured against."""
    return [measures(trial, step, losses) for step, losses in trial_curve(trial)]


def run_trial(point: dict[str, Any], trial: dict[str, Any]) -> None:
    """A trial in a process of its own: no worker group to start. `point` holds its weights."""
    from ray import tune

    trial = {**trial, **point}
    for step, losses in trial_curve(trial):
        tune.report(measures(trial, step, losses))


def run_nested_trial(point: dict[str, Any], trial: dict[str, Any]) -> None:
    """A trial that is a worker group of its own, for proxies that want several GPUs."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    workers = trial["recipe"]["tune"]["workers_per_trial"]
    callbacks: list[Any] = [TuneReportCallback()]
    on_gpu = torch.cuda.is_available()
    TorchTrainer(
        _nested_worker,
        train_loop_config={**trial, **point},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=on_gpu, resources_per_worker=trial["resources_per_worker"]
        ),
        run_config=RunConfig(storage_path=trial["storage_path"], callbacks=callbacks),
    ).fit()


def _nested_worker(trial: dict[str, Any]) -> None:
    from ray import train

    context = train.get_context()
    for step, losses in trial_curve(trial, context.get_world_rank(), context.get_world_size()):
        train.report(measures(trial, step, losses))
