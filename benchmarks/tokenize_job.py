"""The real job on its own command line, watched from outside: wall time, steady state, and memory of all its processes.

Steady state comes from when the job's shards appear, so nothing in the job knows that it is measured.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from benchmarks.recordings import ROOT
from benchmarks.tokenize_loops import ONE_THREAD
from data import storage
from data.store import SHARDS
from ray_jobs.tokenize_shard import PARTS

log = logging.getLogger("antiphon")

SAMPLE_EVERY_S = 0.5
STAMP_S = 0.01  # as finely as file systems stamp their files


@dataclass(frozen=True)
class JobRun:
    """A finished job: seconds of audio in all, audio a second while all workers work, wall and peak memory."""

    audio_s: float
    rate: float
    wall_s: float
    peak_mb: float

    @property
    def fixed_s(self) -> float:
        """What a run costs beside its steady state: starting, loading, ending."""
        return self.wall_s - self.audio_s / self.rate


def run_command_line(
    job: str, recipe: str, overrides: Sequence[str] = (), watch: bool = False, on_gpu: bool = False
) -> tuple[str, float, float]:
    """Folder, wall_s and peak_mb (0 where not watched) of `python -m ray_jobs.<job>`, computed anew."""
    command = [sys.executable, "-m", f"ray_jobs.{job}", recipe, *overrides, "--fresh"]
    environment = {**os.environ, **ONE_THREAD, "RAY_ADDRESS": "local"}
    if on_gpu:
        del environment["CUDA_VISIBLE_DEVICES"]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    meter = MemoryMeter(process.pid)
    if watch:
        meter.start()
    output, _ = process.communicate()
    wall_s = time.perf_counter() - started
    peak_mb = meter.stop() if watch else 0.0
    if process.returncode:
        raise RuntimeError(f"{job} of the benchmark ended with {process.returncode}; see its messages above")
    return output.splitlines()[-1], wall_s, peak_mb


def tokenize(
    recipe: str, workers: int, overrides: Sequence[str] = (), watch: bool = False, gpu: bool = False
) -> JobRun:
    """Run tokenize_speech on `workers`; its inputs must be there already."""
    settings = [f"tokenize.num_workers={workers}", *overrides]
    folder, wall_s, peak_mb = run_command_line("tokenize_speech", recipe, settings, watch, gpu)
    shards = completed_shards(folder)
    run = JobRun(sum(seconds for _, seconds in shards), steady_rate(shards, workers), wall_s, peak_mb)
    log.info("tokenize_speech on %d: %.0f s of audio in %.1f s, %.2f x real time in steady state, peak %.0f MB",
             workers, run.audio_s, wall_s, run.rate, peak_mb)  # fmt: skip
    return run


def completed_shards(folder: str) -> list[tuple[float, float]]:
    """(time of completion, seconds of audio) of every shard of a local store, in order of time."""
    names = [name for name in storage.list_files(storage.join(folder, SHARDS)) if name.endswith(".parquet")]
    shards = []
    for name in names:
        counts = storage.read_json(storage.join(folder, PARTS, name.replace(".parquet", ".json")))
        shards.append((os.stat(storage.join(folder, SHARDS, name)).st_mtime, float(counts["seconds"])))
    return sorted(shards)


def steady_rate(shards: Sequence[tuple[float, float]], workers: int) -> float:
    """Audio a second while all workers work: what each does from its first shard's completion to its last's.

    The first completions are taken to be of one worker each, as are the last ones, so that neither a shard in hand at
    the end of some window nor a worker without one counts. Raises ValueError for too few shards.
    """
    if len(shards) <= 2 * workers:
        raise ValueError(f"{len(shards)} shards of {workers} workers have no steady state: use smaller shards")
    audio_s = sum(seconds for _, seconds in shards[workers:])
    busy_s = sum(time for time, _ in shards[-workers:]) - sum(time for time, _ in shards[:workers])
    return workers * audio_s / max(busy_s, STAMP_S)


class MemoryMeter:
    """The most that a process and all below it held at one time: shared pages are counted once (PSS)."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> float:
        """Stop looking; the peak in MB (10^6 bytes)."""
        self._ended.set()
        self._thread.join()
        return self._peak_bytes / 1e6

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self._peak_bytes = max(self._peak_bytes, tree_bytes(self._pid))


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and all below it; what has just ended counts nothing."""
    try:
        root = psutil.Process(pid)
        members = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(_process_bytes(member) for member in members)


def _process_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0
