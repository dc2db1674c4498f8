"""`train_vocoder`: units + speaker -> vocoder folder."""

import logging
import sys
from typing import Any

import ray

from data import storage
from data.errors import InputError
from data.frozen import result_fields
from ray_jobs import fit_tokenizer, prepare, tokenize_speech
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe
from ray_jobs.session import start_ray
from ray_jobs.vocoder_worker import train_vocoder

log = logging.getLogger("antiphon")


def work(run: Run) -> None:
    """Train in one process of one CPU; the folder gets unit/ and summary.json."""
    config = run.recipe.vocoder
    if config is None:
        raise InputError("vocoder is null in this recipe: give it a section, e.g. vocoder: {kind: unit_mel}")
    start_ray(dashboard=False)
    train = ray.remote(num_cpus=1, max_retries=0)(train_vocoder)
    inputs = run.inputs
    fields = config.model_dump()
    folders = (inputs["prepare"], inputs["tokenize_speech"], run.folder.path, inputs["fit_tokenizer"])
    ray.get(train.remote(fields, run.recipe.seed, *folders, run.recipe.tokenize.max_duration_s))
    log.info("train_vocoder: %s", storage.read_json(run.folder.file("summary.json"))["read"])


def fields(recipe: Recipe) -> dict[str, Any]:
    """What changes the result."""
    return {"vocoder": None if recipe.vocoder is None else result_fields(recipe.vocoder), "seed": recipe.seed}


def plan(recipe: Recipe) -> list[str]:
    """Steps and placement."""
    if recipe.vocoder is None:
        return ["nothing: vocoder is null"]
    config = recipe.vocoder
    return [f"trains  {config.steps} steps of {config.batch_size} crops, {config.channels} channels, on 1 CPU"]


JOB = Job(
    name="train_vocoder",
    version=1,
    work=work,
    fields=fields,
    upstream=lambda recipe: [prepare.JOB, fit_tokenizer.JOB, tokenize_speech.JOB],
    plan=plan,
)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
