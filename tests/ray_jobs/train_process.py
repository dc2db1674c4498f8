"""The train job as a user runs it: a process of its own, watched, signalled and killed with all that it started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.ray_jobs.tiny_store import recipe_overrides

TIMEOUT_S = 300.0
LONG = ("train.steps=120", "train.save_every=10", "train.keep_checkpoints=2")


def start(runs_dir: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """The tiny recipe's training of 120 steps; its output goes to log.txt."""
    arguments = recipe_overrides(runs_dir, *LONG, *overrides)
    with (runs_dir / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ray_jobs.train", "configs/tiny.yaml", *arguments],
            start_new_session=True, stdout=log, stderr=log, env=_environment(),
        )  # fmt: skip


def said(runs_dir: Path) -> str:
    """The end of what the trainings in `runs_dir` have printed."""
    return (runs_dir / "log.txt").read_text()[-3000:]


def wait(condition: Callable[[], Any], what: str) -> Any:
    """Polls within a bounded time."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {TIMEOUT_S:.0f} s for {what}")


def wait_for_checkpoint(folder: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Until the checkpoint of a step is complete. Fails when the process ends before."""
    manifest = folder / "checkpoints" / f"step-{step:06d}" / "manifest.json"
    wait(lambda: manifest.exists() or process.poll() is not None, str(manifest))
    assert process.poll() is None, said(folder.parent)


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and all below it."""
    members = _family(process) if psutil.pid_exists(process.pid) else []
    for member in members:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait(TIMEOUT_S)
    psutil.wait_procs(members[1:], TIMEOUT_S)


def training_workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that train, of those below the job's."""
    found = []
    for member in _family(process):
        try:
            name = " ".join(member.cmdline())
        except psutil.Error:
            continue
        if "RayTrainWorker" in name:
            found.append(member)
    return found


def _environment() -> dict[str, str]:
    return {**{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}, "OMP_NUM_THREADS": "1"}


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
