"""Speed and memory of training: against a bare loop, against Hugging Face's Trainer, by zero_stage, on two workers.

    python -m benchmarks.train [--quick] [--keep FOLDER]

The same model, documents (speech units, lognormal lengths), optimizer, cores and dtype in every leg; one thread per
process; all legs stay alive and are let run by turns, so that a busy moment of the machine meets them alike. Start-up
and 20 steps of each are not counted. Ends in one line of JSON: rates are useful tokens per second (no padding),
overheads fractions, maps keyed by zero_stage. --quick shows that the benchmark runs, its numbers mean nothing.
"""

import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any, TextIO

from benchmarks.command import run_benchmark
from benchmarks.tokenize import hardware
from benchmarks.train_legs import Leg
from benchmarks.train_memory import measure_memory
from benchmarks.train_setup import FULL, QUICK, Sizes, document_lengths, make_recipe, write_inputs
from data.run_folder import git_commit
from model.engine import resolve_dtype

log = logging.getLogger("antiphon")

VERSIONS = ("torch", "transformers", "accelerate", "deepspeed", "numpy")
STAGES = ("0", "1", "2", "3")
GPU_TIMEOUT_S = 300.0
Round = dict[str, float]


def start_legs(folder: str, sizes: Sizes, stack: ExitStack) -> dict[str, list[Leg]]:
    """Every leg by name, waiting at its first chunk; `pair` is two independent processes. The stack ends them."""
    inputs = write_inputs(folder, sizes)
    dtype = resolve_dtype("auto")
    useful = sizes.sequence_length * sizes.global_rows / (document_lengths(sizes.documents).mean() + 2)
    padded = {"documents": sizes.padded_documents, "accumulation": max(1, round(useful / sizes.padded_documents))}

    def leg(name: str, loop: str, workers: int = 1, zero_stage: int = 0, **further: Any) -> Leg:
        recipe = make_recipe(sizes, sizes.model, dtype, num_workers=workers, zero_stage=zero_stage)
        common = {"recipe": recipe.model_dump(mode="json"), "inputs": inputs, "chunk_steps": sizes.chunk_steps}
        started = Leg(name, folder, {"loop": loop, "workers": workers, **common, **further})
        stack.callback(started.stop)
        return started

    legs = {
        "bare": [leg("bare", "bare")],
        "job": [leg("job", "job")],
        "trainer": [leg("trainer", "trainer", sampling="random", **padded)],
        "trainer_by_length": [leg("trainer_by_length", "trainer", sampling="group_by_length", **padded)],
        "pair": [leg("pair", "job"), leg("pair", "job")],
        **{f"zero_{stage}": [leg(f"zero_{stage}", "job", 2, int(stage))] for stage in STAGES},
    }
    for processes in legs.values():
        for one in processes:
            one.ready()
    return legs


def run_round(legs: dict[str, list[Leg]]) -> Round:
    """One chunk of every leg: useful tokens per second, those of the pair together."""
    rates = {}
    for name, processes in legs.items():
        for one in processes:
            one.go()
        rates[name] = sum(one.rate() for one in processes)
    log.info("train: %s", ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
    return rates


def measure_speed(folder: str, sizes: Sizes) -> dict[str, Any]:
    """The ratios, each the median over the rounds, with the rates of every round beside them."""
    with ExitStack() as stack:
        legs = start_legs(folder, sizes, stack)
        for _ in range(-(-sizes.warmup_steps // sizes.chunk_steps)):
            run_round(legs)
        rounds = [run_round(legs) for _ in range(sizes.rounds)]

    def median(ratio: Callable[[Round], float]) -> float:
        return round(statistics.median(ratio(one) for one in rounds), 4)

    return {
        "speedup_vs_hf_trainer": median(lambda r: r["job"] / r["trainer"]),
        "speedup_vs_hf_trainer_group_by_length": median(lambda r: r["job"] / r["trainer_by_length"]),
        "overhead_vs_bare_loop": median(lambda r: r["bare"] / r["job"] - 1),
        "zero_ratio": {stage: median(lambda r, s=stage: r[f"zero_{s}"] / r["zero_0"]) for stage in STAGES},
        "scaling_1_to_2": median(lambda r: r["zero_0"] / r["job"]),
        "scaling_ceiling": median(lambda r: r["pair"] / r["job"]),
        "scaling_vs_ceiling": median(lambda r: r["zero_0"] / r["pair"]),
        "tokens_per_s": {name: round(statistics.median(one[name] for one in rounds), 1) for name in rounds[0]},
        "padding_ceiling": padding_ceiling(sizes),
        "rounds": rounds,
        "dtype": resolve_dtype("auto"),
        "model": vars(sizes.model),
    }


def padding_ceiling(sizes: Sizes) -> float:
    """Padded over useful tokens of random batches of the Trainer's size: what packing alone can win."""
    lengths, size = document_lengths(sizes.documents), sizes.padded_documents
    batches = [lengths[start : start + size] for start in range(0, len(lengths) - size + 1, size)]
    return round(float(sum(batch.max() * size for batch in batches) / sum(batch.sum() for batch in batches)), 3)


def gpu_in_own_process(environment: dict[str, str]) -> dict[str, Any]:
    """What `python -m benchmarks.train_gpu` prints under the environment from before the legs, which are for CPUs."""
    command = [sys.executable, "-m", "benchmarks.train_gpu"]
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=GPU_TIMEOUT_S)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {finished.returncode}: see its traceback above")
    return json.loads(finished.stdout.splitlines()[-1])


def measure(folder: str, sizes: Sizes, results: TextIO) -> None:
    """Run everything in `folder` and print the line of JSON."""
    started, commit, environment = time.monotonic(), git_commit(), dict(os.environ)
    result = {
        "benchmark": "train",
        "quick": sizes is QUICK,
        **measure_speed(folder, sizes),
        **measure_memory(sizes),
        "gpu": gpu_in_own_process(environment),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        "commit": commit,
        "wall_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result), file=results, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command line; exit codes as those of a job."""
    return run_benchmark("train", __doc__, measure, FULL, QUICK, argv)


if __name__ == "__main__":
    sys.exit(main())
