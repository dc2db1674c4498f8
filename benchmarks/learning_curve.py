"""How much training the demo's recognition and speech take: error rates after 240 thread-seconds.

    python -m benchmarks.learning_curve [runs_dir=PATH] [dotted.key=value …]

configs/demo.yaml with ASR and TTS alone (no music, no chain of modality), trained on two threads and judged as the demo
is: ASR on the test texts of the trained voices, TTS by what the recogniser hears. A thread-second is a second of one
training thread in its steps, held-out losses included and start-up excluded. Ends in one line of JSON.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from benchmarks.tokenize import hardware
from data import storage
from data.run_folder import git_commit
from ray_jobs import run_eval, train
from ray_jobs.job import configure_logging, ensure, run_command
from ray_jobs.recipe import Recipe, load_recipe
from ray_jobs.session import start_ray

RECIPE = "configs/demo.yaml"
TASKS = ("asr", "tts")
TRAINING = {
    "train.steps": 560,
    "train.zero_stage": 0,
    "train.validate_every": 80,
    "train.phases": [
        {
            "name": "cross_modal",
            "steps_fraction": 1.0,
            "weights": {"asr": 0.42, "tts": 0.58},
            "loss_weights": {"asr": 2.0},
            "crop_probability": 0.8,
        }
    ],
    "eval.tasks": TASKS,
}


def curve(rows: Iterable[Mapping[str, Any]], num_workers: int) -> list[dict[str, float]]:
    """Step, tokens and thread-seconds so far, and held-out losses, wherever metrics.jsonl has the latter."""
    points, tokens, interval_tokens, thread_s = [], 0, 0, 0.0
    for row in rows:
        tokens += row["tokens"]
        interval_tokens += row["tokens"]
        if "tokens_per_s" in row:
            thread_s += num_workers * interval_tokens / row["tokens_per_s"]
            interval_tokens = 0
        if "validation" in row:
            points.append({"step": row["step"], "tokens": tokens, "thread_s": round(thread_s, 1), **row["validation"]})
    return points


def measure(recipe: Recipe, results: TextIO) -> None:
    """Run what is missing of the chain and print the line."""
    start_ray()
    report = storage.read_json(ensure(run_eval.JOB, recipe).file("report.json"))
    trained = train.JOB.folder(recipe)
    points = curve(storage.read_jsonl(trained.file("metrics.jsonl")), recipe.train.num_workers)
    result = {
        "benchmark": "learning_curve",
        "thread_s": points[-1]["thread_s"],
        **{name: found["value"] for name, found in report["headline"].items() if name.startswith(TASKS)},
        "curve": points,
        "hardware": hardware(),
        "commit": git_commit(),
    }
    print(json.dumps(result), file=results, flush=True)


def main() -> int:
    """The command line; exit codes as those of a job."""
    configure_logging()
    overrides = [f"{key}={json.dumps(value)}" for key, value in TRAINING.items()]
    recipe = load_recipe(RECIPE, [*overrides, *sys.argv[1:]])
    return run_command("learning_curve", lambda results: measure(recipe, results))


if __name__ == "__main__":
    sys.exit(main())
