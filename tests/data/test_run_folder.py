"""Run folders and their lease."""

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from data import run_folder, storage
from data.errors import InputError
from data.run_folder import Lease, RunFolder, RunFolderBusyError, run_id


@pytest.fixture
def folder(tmp_path):
    return RunFolder(str(tmp_path / "job-1"), "1", {"source_sha256": "s"})


def lease_of(process: psutil.Process, host: str | None = None, age_s: float = 0.0) -> dict:
    return {
        "host": host or socket.gethostname(),
        "pid": process.pid,
        "process_start": process.create_time(),
        "heartbeat": time.time() - age_s,
    }


def test_the_id_hangs_on_job_version_fields_and_inputs():
    base = run_id("train", 1, {"steps": 2}, ["a"])
    assert base == run_id("train", 1, {"steps": 2}, ["a"])
    others = {
        run_id("tune", 1, {"steps": 2}, ["a"]),
        run_id("train", 2, {"steps": 2}, ["a"]),
        run_id("train", 1, {"steps": 3}, ["a"]),
        run_id("train", 1, {"steps": 2}, ["b"]),
    }
    assert len(others | {base}) == 5


def test_success_is_the_end_and_clear_forgets_it(folder):
    folder.begin()
    assert folder.started
    assert not folder.done
    folder.finish(1.5)
    assert folder.done
    assert storage.read_json(folder.file("_SUCCESS"))["wall_s"] == 1.5
    assert not folder.source_changed()
    folder.clear()
    assert not folder.done
    assert not folder.started


def test_provenance_names_code_and_packages():
    environment = run_folder.describe_environment()
    assert len(environment["source_sha256"]) == 64
    assert environment["packages"]["torch"].startswith("2.")


def test_the_lease_lasts_as_long_as_the_writer(folder):
    with Lease(folder):
        assert storage.read_json(folder.file("lease.json"))["pid"] == os.getpid()
    assert not storage.exists(folder.file("lease.json"))


def test_a_living_writer_on_this_host_is_named(folder):
    storage.write_json(folder.file("lease.json"), lease_of(psutil.Process(os.getppid())))
    with pytest.raises(RunFolderBusyError, match=str(os.getppid())), Lease(folder):
        pass


def test_a_dead_writer_on_this_host_is_replaced_at_once(folder):
    child = subprocess.Popen([sys.executable, "-c", ""])
    lease = lease_of(psutil.Process(child.pid))
    child.wait()
    storage.write_json(folder.file("lease.json"), lease)
    with Lease(folder):
        assert storage.read_json(folder.file("lease.json"))["pid"] == os.getpid()


def test_a_pid_used_again_by_another_process_is_not_the_writer(folder):
    lease = lease_of(psutil.Process(os.getppid())) | {"process_start": 1.0}
    storage.write_json(folder.file("lease.json"), lease)
    with Lease(folder):
        pass


def test_a_place_that_cannot_be_written_is_the_users_mistake(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with (
        pytest.raises(InputError, match=r"cannot be written .*give a runs_dir"),
        Lease(RunFolder(str(tmp_path / "runs/a"), "a")),
    ):
        pass


def test_a_silent_writer_on_another_host_is_replaced(folder):
    storage.write_json(folder.file("lease.json"), lease_of(psutil.Process(), host="elsewhere", age_s=31.0))
    with Lease(folder):
        assert storage.read_json(folder.file("lease.json"))["host"] == socket.gethostname()


def test_a_writer_on_another_host_that_still_beats_is_named(folder, monkeypatch, capsys):
    storage.write_json(folder.file("lease.json"), lease_of(psutil.Process(), host="elsewhere", age_s=1.0))
    lease = Lease(folder)

    def beat(_seconds):
        storage.write_json(folder.file("lease.json"), lease_of(psutil.Process(), host="elsewhere"))

    monkeypatch.setattr(lease._stop, "wait", beat)
    with pytest.raises(RunFolderBusyError, match="elsewhere"), lease:
        pass
    assert "waiting for the lease" in capsys.readouterr().err
