"""Run folders: one job's artifact, resumable until `_SUCCESS` is written, with one writer at a time."""

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from data import storage
from data.errors import InputError

HEARTBEAT_S = 5.0
STALE_AFTER_S = 30.0
SOURCE_PACKAGES = ("ray_jobs", "serve", "eval", "model", "data")


class RunFolderBusyError(RuntimeError):
    """Another living process writes this folder."""


def run_id(job: str, version: int, fields: dict[str, Any], input_ids: list[str]) -> str:
    """The id of a run: equal for equal work, wherever and on how many workers it is done."""
    return storage.hash_json({"job": job, "version": version, "fields": fields, "inputs": input_ids})[:12]


@dataclass
class RunFolder:
    """`<runs_dir>/<job>-<id>/` and what every such folder holds."""

    path: str
    id: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def file(self, *names: str) -> str:
        """Path or URL of something inside the folder."""
        return storage.join(self.path, *names)

    @property
    def done(self) -> bool:
        """Whether `_SUCCESS` is there."""
        return storage.exists(self.file("_SUCCESS"))

    @property
    def started(self) -> bool:
        """Whether some run has begun here (finished or not)."""
        return storage.exists(self.file("provenance.json"))

    def clear(self) -> None:
        """Forget whatever is here; the lease stays."""
        storage.delete(self.file("_SUCCESS"))
        for name in storage.list_files(self.path):
            if name != "lease.json":
                storage.delete(self.file(name))

    def begin(self) -> None:
        """Write the provenance: the resolved recipe, the code and the inputs this folder comes from."""
        storage.write_json(self.file("provenance.json"), {"id": self.id, **self.provenance})

    def finish(self, wall_s: float) -> None:
        """Mark the folder whole, with the seconds its last run took. The last write of a job."""
        storage.write_json(self.file("_SUCCESS"), {"id": self.id, "wall_s": round(wall_s, 3)})

    def source_changed(self) -> bool:
        """Whether the code that finished this folder differs from the code running now."""
        recorded = storage.read_json(self.file("provenance.json")).get("source_sha256")
        return recorded != self.provenance.get("source_sha256")


def source_sha256() -> str:
    """Hash of the project's own Python files."""
    root = Path(__file__).resolve().parent.parent
    files = sorted(path for package in SOURCE_PACKAGES for path in (root / package).rglob("*.py"))
    return storage.hash_json({str(f.relative_to(root)): storage.hash_bytes(f.read_bytes()) for f in files})


def git_commit() -> str | None:
    """The commit checked out, with `+dirty` behind it when the tree has changes; None outside git."""
    root = Path(__file__).resolve().parent.parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+dirty" if status.stdout.strip() else "")


def describe_environment() -> dict[str, Any]:
    """What of the surroundings belongs into provenance: code, packages, machine."""
    packages = {dist.name: dist.version for dist in distributions()}
    return {
        "git_commit": git_commit(),
        "source_sha256": source_sha256(),
        "python": sys.version.split()[0],
        "packages": dict(sorted(packages.items())),
        "cpu_count": os.cpu_count(),
    }


class Lease:
    """One writer per folder. A context manager: waits for, takes over or refuses, then keeps a heartbeat.

    A lease whose process is gone on this host is taken over at once; one from another host after
    30 s without a heartbeat. Raises RunFolderBusyError against a living holder, and InputError where it cannot write.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.file("lease.json")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        process = psutil.Process()
        self._me = {"host": socket.gethostname(), "pid": process.pid, "process_start": process.create_time()}

    def __enter__(self) -> "Lease":
        self._await_turn()
        try:
            self._write()
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error}): give a runs_dir where there is room") from None
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        storage.delete(self.path)

    def _await_turn(self) -> None:
        announced = False
        while storage.exists(self.path):
            holder = storage.read_json(self.path)
            if all(holder.get(key) == value for key, value in self._me.items()):
                return
            if holder["host"] == self._me["host"]:
                if not _is_alive(holder):
                    return
                raise RunFolderBusyError(
                    f"{self.path} is held by process {holder['pid']} on {holder['host']}, which is alive: "
                    "wait for it or stop it, then run this again"
                )
            age_s = time.time() - holder["heartbeat"]
            if age_s > STALE_AFTER_S:
                return
            if not announced:
                print(
                    f"waiting for the lease of process {holder['pid']} on {holder['host']} "
                    f"(last heartbeat {age_s:.0f} s ago)",
                    file=sys.stderr,
                )
                announced = True
                first_beat = holder["heartbeat"]
            if holder["heartbeat"] != first_beat:
                raise RunFolderBusyError(
                    f"{self.path} is held by process {holder['pid']} on {holder['host']}, which still writes "
                    "its heartbeat: wait for it or stop it, then run this again"
                )
            self._stop.wait(1.0)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            self._write()

    def _write(self) -> None:
        storage.write_json(self.path, {**self._me, "heartbeat": time.time()})


def _is_alive(holder: dict[str, Any]) -> bool:
    try:
        return abs(psutil.Process(holder["pid"]).create_time() - holder["process_start"]) < 1.0
    except psutil.NoSuchProcess:
        return False
