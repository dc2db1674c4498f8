"""`export`: a checkpoint of any number of workers -> model folder, without a cluster."""

import sys
from typing import Any

from data import storage
from data.errors import InputError
from data.frozen import result_fields
from model.checkpoint_files import MANIFEST, read_manifest
from ray_jobs import train
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe
from ray_jobs.train_export import export_checkpoint
from ray_jobs.train_parts import load_parts_of


def work(run: Run) -> None:
    """Write model/."""
    checkpoint = storage.absolute(_checkpoint(run.recipe))
    parts = load_parts_of(checkpoint, run.recipe.without_arguments(), run.inputs)
    export_checkpoint(parts, checkpoint, run.folder.file("model"))


def _checkpoint(recipe: Recipe) -> str:
    if recipe.checkpoint is None:
        raise InputError("export needs checkpoint=PATH: a folder step-NNNNNN under checkpoints/ of a train run")
    read_manifest(recipe.checkpoint)
    return recipe.checkpoint


def raw_inputs(recipe: Recipe) -> list[str]:
    """The checkpoint by content: its manifest names step, phase, recipe and loss."""
    return [storage.hash_bytes(storage.read_bytes(storage.join(_checkpoint(recipe), MANIFEST)))]


def fields(recipe: Recipe) -> dict[str, Any]:
    """What the model folder says beside the weights."""
    return {
        "grammar": result_fields(recipe.grammar),
        "lm": result_fields(recipe.lm),
        "licences": result_fields(recipe.licences),
    }


JOB = Job(
    name="export",
    version=1,
    work=work,
    fields=fields,
    upstream=train.upstream,
    raw_inputs=raw_inputs,
    arguments=("checkpoint",),
    artifact="model",
)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
