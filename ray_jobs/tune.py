"""token store -> mixture.yaml: many short trainings that differ only in the mixture."""

import sys
from typing import Any

from data.frozen import result_fields
from ray_jobs import fit_tokenizer, tokenize_speech
from ray_jobs.draw_instructions import wanted_by
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe
from ray_jobs.tune_search import plan_search, search


def work(run: Run) -> None:
    """Try the points, write the table and the best mixture."""
    search(run)


def fields(recipe: Recipe) -> dict[str, Any]:
    """What the table hangs on."""
    return {
        "tune": result_fields(recipe.tune),
        "grammar": result_fields(recipe.grammar),
        "sequence_length": recipe.train.sequence_length,
        "phases": [result_fields(phase) for phase in recipe.train.phases if phase.mixture_target],
        "seed": recipe.seed,
    }


JOB = Job(
    name="tune",
    version=2,
    work=work,
    fields=fields,
    upstream=lambda recipe: [fit_tokenizer.JOB, tokenize_speech.JOB, *wanted_by(recipe)],
    plan=plan_search,
)

if __name__ == "__main__":
    sys.exit(run_main(JOB))
