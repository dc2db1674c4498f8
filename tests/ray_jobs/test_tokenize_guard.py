"""The guarded process: it comes up or says so, and never outlives its actor."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ray_jobs.tokenize_guard import _Guard

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
KILLED_ACTOR = """
import os, signal
from types import SimpleNamespace
from ray_jobs.tokenize_guard import _Guard

print(_Guard(SimpleNamespace(arguments=())).ask(os.getpid), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_guard_that_does_not_come_up_is_an_error_and_no_files_fault() -> None:
    encoder = cast(Any, SimpleNamespace(arguments=("no mapping",)))  # which its class does not take
    with _Guard(encoder) as guard, pytest.raises(RuntimeError, match="while it loaded the audio tokenizers"):
        guard.ask(os.getpid)


def test_a_process_that_died_between_two_questions_is_no_blame_for_the_second(tmp_path: Path) -> None:
    with _Guard(cast(Any, SimpleNamespace(arguments=()))) as guard:
        first = guard.ask(os.getpid)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        second = guard.ask(os.getpid)
        assert second not in (None, first)
        assert guard.ask(os._exit, 1) is None
        assert guard.ask(os.getpid) not in (None, first, second)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for the process in /proc")
def test_the_guard_of_a_killed_actor_ends_too() -> None:
    actor = subprocess.Popen([sys.executable, "-c", KILLED_ACTOR], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert actor.stdout is not None
    guard = int(actor.stdout.readline())
    actor.wait(60)
    deadline = time.monotonic() + 30
    while is_running(guard) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(guard)
