"""Speed, memory and waste of the token stream, from store to batch, and what ten million utterances cost.

    python -m benchmarks.stream [--quick] [--keep FOLDER]

Utterances of lognormal lengths (median 6 s, sigma 0.7, clipped to 1-30 s, at 25 Hz), one thread per process. Every
grammar is measured alone; unit_lm in rounds that alternate with a plain PyTorch DataLoader that tokenizes strings with
a fast tokenizer and pads. Figures of 10 million utterances: with a generated sidecar, but for `sidecar_s_10m`, which
is measured on 1 million stored rows and multiplied. Ends in one line of JSON. --quick shows that it runs, its numbers
mean nothing.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from benchmarks.command import run_benchmark
from benchmarks.machine import hardware, versions
from benchmarks.stream_corpus import some_words, write_full_store, write_plain_store
from benchmarks.stream_scale import generate_sidecar
from data import storage
from data.run_folder import git_commit
from ray_jobs.job import log

TEN_MILLION = 10_000_000
VERSIONS = ("torch", "transformers", "tokenizers", "numpy", "pyarrow")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    records: int
    words: int
    stored_rows: int
    sidecar_rows: int
    seconds: float
    rounds: int


FULL = Sizes(records=20_000, words=2000, stored_rows=1_000_000, sidecar_rows=TEN_MILLION, seconds=2.0, rounds=5)
QUICK = Sizes(records=400, words=50, stored_rows=500, sidecar_rows=2000, seconds=0.05, rounds=1)


def measure(folder: str, sizes: Sizes, results: TextIO) -> None:
    """Run everything in `folder` and print the line of JSON."""
    started, commit = time.monotonic(), git_commit()
    full, plain, generated = (storage.join(folder, name) for name in ("full", "plain", "generated"))
    rng = np.random.default_rng(5)
    words = some_words(sizes.words, rng)
    for store in (full, plain):
        storage.write_json(storage.join(store, "words.json"), words)
    write_full_store(full, sizes.records, words, rng)
    log.info("stream: %d records of every kind", sizes.records)
    speed = run_part("stream_speed", {"folder": full, "seconds": sizes.seconds, "rounds": sizes.rounds})
    log.info("stream: %s", speed)
    generate_sidecar(generated, sizes.sidecar_rows)
    log.info("stream: a sidecar of %d rows", sizes.sidecar_rows)
    start = run_part("stream_scale", {"part": "start", "folder": generated})
    storage.delete(generated)
    write_plain_store(plain, sizes.stored_rows, words, rng)
    log.info("stream: %s, %d rows stored", start, sizes.stored_rows)
    sidecar = run_part("stream_scale", {"part": "sidecar", "folder": plain})
    result = {
        "benchmark": "stream",
        "quick": sizes is QUICK,
        **speed,
        "startup_s_10m": start["startup_s"],
        "rss_mb_10m": start["peak_mb"],
        "sidecar_s_10m": sidecar["wall_s"] * TEN_MILLION / sidecar["utterances"],
        "start": start,
        "sidecar": sidecar,
        "hardware": hardware(),
        "versions": versions(*VERSIONS),
        "commit": commit,
        "wall_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result), file=results, flush=True)


def run_part(module: str, request: dict[str, Any]) -> Any:
    """What a part has measured, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{module}"]
    environment = {**os.environ, **ONE_THREAD}
    finished = subprocess.run(
        command, input=json.dumps(request) + "\n", stdout=subprocess.PIPE, text=True, env=environment, check=True
    )
    return json.loads(finished.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> int:
    """The command line; exit codes as those of a job."""
    return run_benchmark("stream", __doc__, measure, FULL, QUICK, argv)


if __name__ == "__main__":
    sys.exit(main())
