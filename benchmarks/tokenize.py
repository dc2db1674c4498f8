"""Speed and memory of tokenize_speech: against the encoder alone, against the loop that people write, 1 h and 10 h.

    python -m benchmarks.tokenize [--quick] [--keep FOLDER]

Real recordings (the built-in corpus where they are absent) under new ids, and an encoder of HuBERT base's shape with
random weights; one thread per worker. Rounds alternate between all legs. Ends in one line of JSON: overheads are
fractions, speed-ups ratios, rates x real time, and start-up stands apart from the steady state. --quick runs the same
with a tiny encoder on seconds of audio: it shows that the benchmark runs, its numbers mean nothing.
"""

import json
import logging
import sys
import time
from typing import Any, TextIO

from benchmarks.command import run_benchmark
from benchmarks.machine import hardware, versions
from benchmarks.recordings import padding_ceiling, seconds_of, speech_recordings, workload, write_workload
from benchmarks.tokenize_assign import assign_over_product
from benchmarks.tokenize_gpu import measure_gpu
from benchmarks.tokenize_job import run_command_line, tokenize
from benchmarks.tokenize_loops import run_loops
from benchmarks.tokenize_setup import FULL, QUICK, Sizes, builtin_units, make_encoder, write_recipe
from data import storage
from data.manifest import Utterance
from data.run_folder import git_commit

log = logging.getLogger("antiphon")

BATCH = 8  # of the loop that people write
CALIBRATION_S = 20.0
# Seconds of encoder time that a second of the workload costs in one round: all legs of `measure_round` together.
LEGS_PER_ROUND = 4.75
VERSIONS = ("torch", "transformers", "ray", "numpy", "soundfile", "soxr")


class Workload:
    """The manifests of all legs: the whole, every other batch of it for the file loops, and two halves."""

    def __init__(self, folder: str, utterances: list[Utterance]) -> None:
        parts = [utterances[i : i + BATCH] for i in range(0, len(utterances), BATCH)]
        self.utterances = utterances
        self.for_files = [utterance for part in parts[::2] for utterance in part]
        self.whole = write_workload(storage.join(folder, "whole.jsonl"), utterances)
        self.files = write_workload(storage.join(folder, "files.jsonl"), self.for_files)
        halves = (utterances[::2], utterances[1::2])
        self.halves = [write_workload(storage.join(folder, f"half{i}.jsonl"), half) for i, half in enumerate(halves)]


def measure_round(load: Workload, encoder: dict[str, Any], recipe: str) -> dict[str, float]:
    """Rates of every leg in x real time, and what a run of the job costs beside its steady state."""

    def rate(loop: str, manifests: list[str], batch: int = 1) -> float:
        requests = [{"encoder": encoder, "manifest": path, "loop": loop, "batch": batch} for path in manifests]
        rates = [found["audio_s"] / found["wall_s"] for found in run_loops(requests)]
        log.info("%s, %d processes, batches of %d: %.2f x real time", loop, len(rates), batch, sum(rates))
        return sum(rates)

    alone = rate("encoder", [load.whole])
    job = tokenize(recipe, 1)
    return {
        "encoder": alone,
        "job_1_worker": job.rate,
        "files_batch_8": rate("files", [load.files], BATCH),
        "job_2_workers": tokenize(recipe, 2).rate,
        "encoder_2_processes": rate("encoder", load.halves),
        "files_batch_1": rate("files", [load.files]),
        "fixed_overhead_s": job.fixed_s,
    }


def measure_speed(folder: str, recordings: list[Utterance], encoder: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The ratios of all rounds: means, with each round's rates beside them."""
    short = write_workload(
        storage.join(folder, "short.jsonl"), workload(recordings, min(CALIBRATION_S, sizes.workload_s))
    )
    request = {"encoder": encoder, "manifest": short, "loop": "encoder", "batch": 1}
    found = run_loops([request])[0]
    affordable_s = sizes.encoder_s * found["audio_s"] / found["wall_s"] / (LEGS_PER_ROUND * sizes.rounds)
    load = Workload(folder, workload(recordings, min(sizes.workload_s, affordable_s)))
    runs_dir = storage.join(folder, "runs")
    recipe = write_recipe(storage.join(folder, "ssl.yaml"), runs_dir, load.whole, encoder, sizes.shard_utterances)
    run_command_line("fit_tokenizer", recipe)
    rounds = [measure_round(load, encoder, recipe) for _ in range(sizes.rounds)]

    def mean(top: str, bottom: str) -> float:
        return sum(one[top] / one[bottom] for one in rounds) / len(rounds)

    scaling = [one["job_2_workers"] / one["job_1_worker"] for one in rounds]
    ceiling = [one["encoder_2_processes"] / one["encoder"] for one in rounds]
    return {
        "overhead_vs_encoder": mean("encoder", "job_1_worker") - 1,
        "fixed_overhead_s": sum(one["fixed_overhead_s"] for one in rounds) / len(rounds),
        "speedup_vs_file_loop": mean("job_1_worker", "files_batch_8"),
        "padding_ceiling": padding_ceiling(load.for_files, BATCH),
        "speedup_vs_batch_of_one": mean("job_1_worker", "files_batch_1"),
        "scaling_vs_ceiling": sum(s / c for s, c in zip(scaling, ceiling, strict=True)) / len(rounds),
        "scaling": sum(scaling) / len(rounds),
        "scaling_ceiling": sum(ceiling) / len(rounds),
        "workload_s": seconds_of(load.utterances),
        "file_loops_s": seconds_of(load.for_files),
        "rounds": rounds,
    }


def measure_memory(folder: str, recordings: list[Utterance], sizes: Sizes) -> dict[str, Any]:
    """Peak memory of all processes of the job with the built-in units, on the shorter and the longer corpus."""
    peaks = []
    for seconds in sizes.memory_s:
        name = f"memory-{seconds:.0f}"
        manifest = write_workload(storage.join(folder, f"{name}.jsonl"), workload(recordings, seconds))
        shards = sizes.memory_shard_utterances
        recipe = write_recipe(
            storage.join(folder, f"{name}.yaml"), storage.join(folder, name), manifest, builtin_units(), shards
        )
        run_command_line("fit_tokenizer", recipe)
        peaks.append(tokenize(recipe, 2, watch=True).peak_mb)
    return {"peak_mb_1h": peaks[0], "peak_mb_10h": peaks[1], "memory_audio_s": list(sizes.memory_s)}


def measure(folder: str, sizes: Sizes, results: TextIO) -> None:
    """Run everything in `folder` and print the line of JSON."""
    started, commit = time.monotonic(), git_commit()
    recordings, corpus = speech_recordings(storage.join(folder, "corpus"))
    encoder = make_encoder(storage.join(folder, "encoder"), sizes)
    result = {
        "benchmark": "tokenize",
        "quick": sizes is QUICK,
        **measure_speed(folder, recordings, encoder, sizes),
        **measure_memory(folder, recordings, sizes),
        "kmeans_vs_gemm": assign_over_product(sizes.points),
        "gpu": measure_gpu(folder, recordings, encoder),
        "corpus": corpus,
        "hardware": hardware(),
        "versions": versions(*VERSIONS),
        "commit": commit,
        "wall_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result), file=results, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command line; exit codes as those of a job."""
    return run_benchmark("tokenize", __doc__, measure, FULL, QUICK, argv)


if __name__ == "__main__":
    sys.exit(main())
