"""Real recordings: word error rate of configs/digits.yaml over five folds of two takes, pooled.

    python -m benchmarks.digits MANIFEST [runs_dir=PATH] [dotted.key=value …]

Every fold runs the ordinary jobs (prepare to run_eval) on the manifest with two takes held out.
Ends in one line of JSON.
"""

import argparse
import json
import sys
from typing import TextIO

from scipy.stats import binomtest

from data import storage
from data.run_folder import git_commit
from ray_jobs import run_eval
from ray_jobs.job import configure_logging, ensure, run_command
from ray_jobs.recipe import load_recipe
from ray_jobs.session import start_ray

RECIPE = "configs/digits.yaml"
FOLDS = ([0, 1], [2, 3], [4, 5], [6, 7], [8, 9])


def evaluate_fold(manifest: str, takes: list[int], overrides: list[str]) -> tuple[int, int]:
    """Wrong and all held-out clips of one fold: a clip holds one word, so an error is a clip that is not right."""
    recipe = load_recipe(RECIPE, [f"corpus.manifest={manifest}", f"corpus.test.take={takes}", *overrides])
    folder = ensure(run_eval.JOB, recipe)
    samples = [row for row in storage.read_jsonl(folder.file("samples.jsonl")) if row["task"] == "asr"]
    wrong = sum(row["hypothesis"] != row["reference"] for row in samples)
    print(f"takes {takes}: {wrong} of {len(samples)} clips wrong", file=sys.stderr)
    return wrong, len(samples)


def evaluate_folds(manifest: str, overrides: list[str], results: TextIO) -> None:
    """Run the five folds and print the pooled rate to `results`."""
    start_ray()
    folds = [evaluate_fold(manifest, takes, overrides) for takes in FOLDS]
    wrong, clips = (sum(column) for column in zip(*folds, strict=True))
    interval = binomtest(wrong, clips).proportion_ci(method="wilson")
    result = {
        "benchmark": "digits",
        "wer": wrong / clips,
        "ci95": [interval.low, interval.high],
        "wrong": wrong,
        "clips": clips,
        "wrong_per_fold": [fold[0] for fold in folds],
        "overrides": overrides,
        "commit": git_commit(),
    }
    print(json.dumps(result), file=results, flush=True)


def main() -> int:
    """The command line; exit codes as those of a job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", help="JSONL of single words with `text` and `take`")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help=f"of {RECIPE}")
    options = parser.parse_args()
    configure_logging()
    return run_command("digits", lambda results: evaluate_folds(options.manifest, options.overrides, results))


if __name__ == "__main__":
    sys.exit(main())
