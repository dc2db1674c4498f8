"""Evaluates a model through its endpoint: report.json, samples.jsonl, report.html.

python -m ray_jobs.run_eval RECIPE [model=PATH | endpoint=URL]
"""

import sys
from typing import Any

from data import storage
from data.errors import InputError
from data.frozen import result_fields
from ray_jobs import fit_judges, fit_tokenizer, prepare, tokenize_speech, train, train_vocoder
from ray_jobs.eval_endpoint import endpoint_identity
from ray_jobs.eval_run import evaluate
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe


def work(run: Run) -> None:
    """Ask, judge, report."""
    evaluate(run)


def fields(recipe: Recipe) -> dict[str, Any]:
    """What changes the numbers beside the inputs."""
    return {
        "seed": recipe.seed,
        "eval": result_fields(recipe.eval),
        "decoding": result_fields(recipe.serve),
        "tasks": sorted(recipe.grammar.tasks),
    }


def upstream(recipe: Recipe) -> list[Job]:
    """Corpus and judges; the recipe's own model unless one is given."""
    if recipe.model and recipe.endpoint:
        raise InputError(f"model={recipe.model!r} and endpoint={recipe.endpoint!r} are both given: give one of them")
    jobs = [prepare.JOB, fit_tokenizer.JOB, tokenize_speech.JOB]
    if recipe.judges.recogniser or recipe.judges.clap is not None:
        jobs.append(fit_judges.JOB)
    if recipe.vocoder is not None:
        jobs.append(train_vocoder.JOB)
    return jobs if recipe.model or recipe.endpoint else [*jobs, train.JOB]


def raw_inputs(recipe: Recipe) -> list[str]:
    """What the user brought, by content."""
    if recipe.model:
        if not storage.exists(storage.join(recipe.model, "config.json")):
            raise InputError(f"model={recipe.model!r} is no model folder: it holds no config.json; give train's model/")
        return [storage.hash_folder(recipe.model)]
    return [endpoint_identity(recipe.endpoint)] if recipe.endpoint else []


def plan(recipe: Recipe) -> list[str]:
    """The job's lines of `--dry-run`."""
    where = recipe.endpoint or "an endpoint of its own, one replica"
    return [
        f"asks    {where}, {recipe.eval.concurrency} requests in flight",
        f"tasks   {', '.join(recipe.eval.tasks)}",
        f"judges  {recipe.eval.num_workers} processes of 1 CPU",
        f"takes   {recipe.eval.bootstrap_samples} bootstrap samples per line",
    ]


JOB = Job(
    name="run_eval",
    version=1,
    work=work,
    fields=fields,
    upstream=upstream,
    raw_inputs=raw_inputs,
    plan=plan,
    arguments=("model", "endpoint"),
)


def main(argv: list[str] | None = None) -> int:
    """The command line; the last line of stdout is the report's folder."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
