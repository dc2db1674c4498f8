"""`train`: token store -> checkpoints -> model folder, with Ray Train and DeepSpeed."""

import logging
import sys
from typing import Any

from data import storage
from data.errors import InputError
from data.frozen import result_fields
from model.checkpoint import complete_checkpoints
from model.deepspeed_config import deepspeed_config
from model.engine import estimate_bytes, resolve_dtype
from model.schedule import PhasePlan
from ray_jobs import fit_tokenizer, tokenize_speech
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe
from ray_jobs.train_loop import CHECKPOINTS
from ray_jobs.train_metrics import merge_metrics
from ray_jobs.train_parts import export_checkpoint, load_parts, phases_to_run, read_mixture
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
    parts = load_parts(recipe, run.inputs)
    check_sinks(recipe.train.sinks)
    check_resumable(parts, storage.join(folder, CHECKPOINTS))
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
    """Whether the checkpoint after the last step is there."""
    found = complete_checkpoints(storage.join(folder, CHECKPOINTS))
    return bool(found) and int(found[-1].rsplit("-", 1)[-1]) >= phases[-1].last_step


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
    """Contents of what `mixture=`, `model=` and `lm.path` name."""
    found = []
    if recipe.mixture is not None:
        found.append(storage.hash_json({"mixture": read_mixture(recipe)}))
    for key, path in (("model", recipe.model), ("lm.path", recipe.lm.path)):
        if path is not None and storage.exists(path):
            found.append(storage.hash_json({key: storage.hash_folder(path)}))
        elif key == "model" and path is not None:
            raise InputError(f"model={path!r} does not exist: give a model folder")
    return found


def upstream(recipe: Recipe) -> list[Job]:
    """The store, the tokenizers, and the vocoder that the model folder carries."""
    jobs = [tokenize_speech.JOB, fit_tokenizer.JOB]
    if recipe.vocoder is not None:
        from ray_jobs import train_vocoder

        jobs.append(train_vocoder.JOB)
    return jobs


def plan(recipe: Recipe) -> list[str]:
    """Steps per phase, tokens per step, memory and placement."""
    train = with_dtype(recipe).train
    shape = recipe.lm
    config = deepspeed_config(train, train.num_workers)
    per_layer = 4 * shape.hidden_size**2 + 3 * shape.hidden_size * shape.intermediate_size
    body = shape.num_layers * per_layer
    states = estimate_bytes(body, train, train.phases[0], train.num_workers)
    lines = [
        f"phase   {p.config.name}: {p.steps} steps ({p.first_step + 1} to {p.last_step}), lr {p.config.lr:g}, "
        f"{'LoRA, ' if p.config.lora else ''}{p.config.weights}"
        for p in phases_to_run(recipe)
    ]
    return [
        *lines,
        f"step    {train.global_batch_rows} rows of {train.sequence_length} = "
        f"{train.global_batch_rows * train.sequence_length} tokens ({config['train_batch_size']} rows with padding)",
        f"workers {train.num_workers} x {train.num_cpus:g} CPU, {train.num_gpus:g} GPU; zero_stage {train.zero_stage}, "
        f"{train.dtype}, micro-batches of {train.micro_batch_rows}",
        f"memory  about {sum(states.values()) / 2**20:.0f} MiB of model states per worker, embeddings not counted "
        f"({', '.join(f'{name} {size / 2**20:.0f}' for name, size in states.items())})",
        f"saves   every {train.save_every} steps, the newest {train.keep_checkpoints} kept",
    ]


JOB = Job(
    name="train",
    version=1,
    work=work,
    fields=fields,
    upstream=upstream,
    raw_inputs=raw_inputs,
    plan=plan,
    inspect=lambda recipe: weight_lines({"lm.path": recipe.lm.path}),
    arguments=("phase", "mixture", "model"),
)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
