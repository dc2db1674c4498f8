"""How the steps of the demo are run."""

import threading
from pathlib import Path
from typing import Any

import pytest

from data.run_folder import RunFolder
from ray_jobs import demo_run, train
from ray_jobs.job import Job
from tests.ray_jobs.tiny_store import tiny_recipe


def test_training_runs_in_the_main_thread_which_alone_can_save_on_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: dict[str, threading.Thread] = {}

    def ensure(job: Job, recipe: Any, fresh: bool) -> RunFolder:
        ran[job.name] = threading.current_thread()
        return RunFolder(str(tmp_path / job.name), job.name)

    monkeypatch.setattr(demo_run, "ensure", ensure)
    monkeypatch.setattr(demo_run, "start_ray", lambda: None)
    folder, _ = demo_run.run_demo(tiny_recipe(tmp_path))
    assert ran[train.JOB.name] is threading.main_thread()
    assert set(ran) == {job.name for step in demo_run.STEPS for job in step}
    assert folder.path == str(tmp_path / demo_run.STEPS[-1][0].name)
