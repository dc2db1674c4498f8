"""`train`: token store -> checkpoints -> model folder, with Ray Train and DeepSpeed."""

import logging
import sys
from typing import Any

from data import storage
from data.errors import InputError
from data.frozen import result_fields
from model.checkpoint_files import CHECKPOINTS, complete_checkpoints, newest_readable, step_of
from model.checkpoint_retention import intact
from model.deepspeed_config import check_saved, check_understood
from model.engine import resolve_dtype
from model.schedule import PhasePlan
from ray_jobs import fit_tokenizer, tokenize_speech
from ray_jobs.draw_instructions import wanted_by
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe
from ray_jobs.train_export import check_adapter_exports, export_checkpoint
from ray_jobs.train_metrics import merge_metrics
from ray_jobs.train_parts import load_parts, phases_to_run, read_mixture
from ray_jobs.train_plan import plan_lines
from ray_jobs.train_run import run_training
from ray_jobs.train_sinks import check_sinks
from ray_jobs.train_stream import check_resumable, log_mixture
from ray_jobs.train_validation import validation_rows
from ray_jobs.weights import weight_lines

log = logging.getLogger("antiphon")


def work(run: Run) -> None:
    """Write checkpoints/, phases/, model/ and metrics.jsonl."""
    recipe = with_dtype(run.recipe)
    folder = run.folder.path
    parts = load_parts(recipe, run.inputs, run_folder=folder, measures=True)
    check_sinks(recipe.train.sinks)
    check_adapter_exports(parts)
    if newest := newest_readable(storage.join(folder, CHECKPOINTS)):
        check_resumable(parts, newest[0])
    for plan in parts.phases:  # what does not fit is said here, before workers start
        log_mixture(plan, parts.stream(plan))
        if recipe.train.validate_every:
            validation_rows(parts, plan)
    if not finished(folder, parts.phases):
        run_training(parts, folder)
    merge_metrics(folder)
    last = complete_checkpoints(storage.join(folder, CHECKPOINTS))[-1]
    log.info("train: exporting %s", last)
    export_checkpoint(parts, last, storage.join(folder, "model"))


def finished(folder: str, phases: tuple[PhasePlan, ...]) -> bool:
    """Whether the checkpoint after the last step is there, and whole."""
    found = complete_checkpoints(storage.join(folder, CHECKPOINTS))
    return bool(found) and step_of(found[-1]) >= phases[-1].last_step and intact(found[-1])


def with_dtype(recipe: Recipe) -> Recipe:
    """The recipe with `train.dtype` settled: GPU workers compute in bf16, CPU workers in what this machine has."""
    train = recipe.train
    dtype = "bf16" if train.dtype == "auto" and train.num_gpus else resolve_dtype(train.dtype)
    return recipe.model_copy(update={"train": train.model_copy(update={"dtype": dtype})})


def fields(recipe: Recipe) -> dict[str, Any]:
    """What changes the result beside the inputs; the dtype in use is one of them."""
    recipe = with_dtype(recipe)
    return {
        "seed": recipe.seed,
        "lm": result_fields(recipe.lm),
        "train": result_fields(recipe.train),
        "grammar": result_fields(recipe.grammar),
        "phase": recipe.phase,
    }


def raw_inputs(recipe: Recipe) -> list[str]:
    """Contents of what `mixture=`, `model=`, `lm.path` and the phases' `start_from` name. Raises InputError as
    `phases_to_run` does: here, before hours go into the store."""
    phases_to_run(recipe)
    found = []
    if recipe.mixture is not None:
        found.append(storage.hash_json({"mixture": read_mixture(recipe)}))
    for key, path in (("model", recipe.model), *weights_named(recipe).items()):
        if path is not None and storage.exists(path):
            found.append(storage.hash_json({key: storage.hash_folder(path)}))
        elif key == "model" and path is not None:
            raise InputError(f"model={path!r} does not exist: give a model folder")
    return found


def weights_named(recipe: Recipe) -> dict[str, str | None]:
    """What the recipe starts from, by key."""
    starts = {f"train.phases.{index}.start_from": phase.start_from for index, phase in enumerate(recipe.train.phases)}
    return {"lm.path": recipe.lm.path, **starts}


def upstream(recipe: Recipe) -> list[Job]:
    """The store, the tokenizers, and the vocoder that the model folder carries."""
    jobs = [tokenize_speech.JOB, fit_tokenizer.JOB, *wanted_by(recipe)]
    if recipe.vocoder is not None:
        from ray_jobs import train_vocoder

        jobs.append(train_vocoder.JOB)
    return jobs


def ready(recipe: Recipe) -> None:
    """Raises InputError for what the work would stop at."""
    weight_lines(weights_named(recipe))
    check_understood(recipe.train)
    check_saved(recipe.train)


def plan(recipe: Recipe) -> list[str]:
    """Phases, tokens per step, memory and placement. Raises InputError for a sink whose package is absent, and for what
    DeepSpeed does not understand."""
    check_sinks(recipe.train.sinks)
    check_understood(recipe.train)
    return plan_lines(with_dtype(recipe))


JOB = Job(
    name="train",
    version=2,
    work=work,
    fields=fields,
    upstream=upstream,
    raw_inputs=raw_inputs,
    plan=plan,
    inspect=lambda recipe: weight_lines(weights_named(recipe)),
    ready=ready,
    arguments=("phase", "mixture", "model"),
)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
