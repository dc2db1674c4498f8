"""The same line under `ray job submit`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`ray job submit` of a job of ours to the session's cluster."""
    import ray

    dashboard = ray.init(ignore_reinit_error=True, logging_level="ERROR").dashboard_url
    ray_command = Path(sys.executable).parent / "ray"
    return subprocess.run(
        [ray_command, "job", "submit", "--address", f"http://{dashboard}", "--working-dir", ".", "--",
         "python", "-m", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_submitted_job_writes_its_folder_on_shared_storage(tmp_path):
    done = submit("ray_jobs.prepare", "configs/tiny.yaml", f"runs_dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("prepare-*/_SUCCESS"))) == 1


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_submitted_job_refuses_a_relative_runs_dir():
    refused = submit("ray_jobs.prepare", "configs/tiny.yaml")
    assert refused.returncode != 0
    assert "runs_dir='runs' is relative" in refused.stdout + refused.stderr
