"""SIGTERM to the driver of a training, and errors that end a job with a line instead of a traceback."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from data import storage
from data.errors import RunError
from model.checkpoint_files import CHECKPOINTS, FORMAT_VERSION, MANIFEST, step_name
from ray_jobs import train_stop
from ray_jobs.job import run_command
from ray_jobs.train_stop import STOP, StopRequest, saving_on_sigterm


def _wait_in_vain(folder: Path) -> None:
    with saving_on_sigterm(str(folder), 0.2):
        assert not (folder / STOP).exists()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (folder / STOP).exists()
        time.sleep(10)  # the alarm interrupts it


def test_sigterm_asks_by_a_file_and_ends_in_an_error_when_nobody_saves(tmp_path: Path) -> None:
    (tmp_path / STOP).write_text("left by a run before")
    before = signal.getsignal(signal.SIGTERM)
    newest = tmp_path / CHECKPOINTS / step_name(7)
    storage.write_json(newest / MANIFEST, {"format_version": FORMAT_VERSION})
    (tmp_path / CHECKPOINTS / step_name(8)).mkdir()  # half written
    with pytest.raises(RunError, match=rf"within train.grace_s=0.2; the newest whole checkpoint is {newest}$"):
        _wait_in_vain(tmp_path)
    assert not (tmp_path / STOP).exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_saves_in_time_hears_no_alarm(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match="asked to stop, after the last step: there is no checkpoint yet"),
        saving_on_sigterm(str(tmp_path), 60),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def _asked_twice(folder: Path) -> None:
    with saving_on_sigterm(str(folder), 60):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, 0)  # the grace that is left
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_second_sigterm_gives_no_more_time(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="asked to stop"):
        _asked_twice(tmp_path)


def test_where_the_workers_cannot_be_asked_that_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, value: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(train_stop.storage, "write_json", refuse)
    monkeypatch.setattr(train_stop, "newest_readable", lambda folder: refuse(folder, None))
    with (
        pytest.raises(
            RunError, match=r"cannot be asked to save: .*Read-only file system.*; the checkpoints in .* stay"
        ),
        saving_on_sigterm(str(tmp_path), 60),
    ):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_named_error_ends_a_job_with_1_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def fail(out: object) -> None:
        raise RunError("what happened and where")

    assert run_command("train", fail) == 1
    assert caplog.messages == ["what happened and where"]
    assert caplog.records[0].exc_info is None


def test_a_storage_that_fails_once_does_not_make_the_run_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([OSError("slow down"), True])

    def exists(path: str) -> bool:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(train_stop.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(train_stop, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(train_stop.storage, "exists", exists)
    assert StopRequest("run")._seen.wait(10)
