"""`fit_judges`: the judge of music, and the language model of the judge that listens to speech."""

import sys
from typing import Any

import ray

from data import storage
from data.config import BuiltinCorpus
from data.frozen import result_fields
from ray_jobs import prepare
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.judges_worker import fit_clap_judge, fit_recogniser_judge
from ray_jobs.recipe import Recipe
from ray_jobs.session import start_ray


def work(run: Run) -> None:
    """Fit each judge in a process of one CPU; the folder gets clap/, recogniser/ and summary.json."""
    start_ray(dashboard=False)
    summary: dict[str, Any] = {"clap": None, "recogniser": None}
    fitting: dict[str, Any] = {}
    if run.recipe.judges.recogniser:
        recogniser = ray.remote(num_cpus=1, max_retries=0)(fit_recogniser_judge)
        fitting["recogniser"] = recogniser.remote(run.inputs["prepare"], run.folder.path)
    music = clap_fields(run.recipe)
    if music is not None:
        clap = ray.remote(num_cpus=1, max_retries=0)(fit_clap_judge)
        fitting["clap"] = clap.remote(music["config"], music["duration_s"], run.folder.path)
    summary.update(zip(fitting, ray.get(list(fitting.values())), strict=True))
    storage.write_json(run.folder.file("summary.json"), summary)


def clap_fields(recipe: Recipe) -> dict[str, Any] | None:
    """What the music judge depends on; None where the recipe has no music, or no judge for it."""
    corpus, config = recipe.corpus, recipe.judges.clap
    if (
        config is None
        or not isinstance(corpus, BuiltinCorpus)
        or not corpus.music.train_clips + corpus.music.test_clips
    ):
        return None
    return {"config": result_fields(config), "duration_s": corpus.music.duration_s}


def fields(recipe: Recipe) -> dict[str, Any]:
    """What changes the result. The recipe's seed does not: the music judge has its own."""
    return {"recogniser": recipe.judges.recogniser, "clap": clap_fields(recipe)}


def plan(recipe: Recipe) -> list[str]:
    """Which judges are fitted."""
    lines = ["fits    recogniser: bigram language model of the training texts"] if recipe.judges.recogniser else []
    config = recipe.judges.clap
    if config is not None and clap_fields(recipe) is not None:
        lines.append(f"fits    clap: {config.steps} steps of {config.batch_size} clips, on 1 CPU")
    return lines


JOB = Job(
    name="fit_judges",
    version=1,
    work=work,
    fields=fields,
    upstream=lambda recipe: [prepare.JOB],
    plan=plan,
)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
