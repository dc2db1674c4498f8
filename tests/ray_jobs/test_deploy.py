"""deploy as a user runs it: one line on stdout, and a drain on SIGTERM."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ray_jobs.deploy import main
from tests.tiny_model import make_tiny_model_folder

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPE = str(ROOT / "configs" / "demo.yaml")


def test_a_folder_that_is_no_model_is_bad_input(tmp_path: Path) -> None:
    assert main([RECIPE, f"model={tmp_path}"]) == 2


def test_another_jobs_argument_is_bad_input() -> None:
    assert main([RECIPE, "phase=adaptation"]) == 2


@pytest.mark.slow
def test_deploy_prints_its_url_alone_and_answers_what_is_inside_before_it_exits(tmp_path: Path) -> None:
    folder = make_tiny_model_folder(tmp_path)
    arguments = [RECIPE, f"model={folder}", "serve.port=0", "serve.num_cpus=0.2", f"runs_dir={tmp_path}/runs"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with open(tmp_path / "stderr", "w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray_jobs.deploy", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (tmp_path / "stderr").read_text()
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as http, ThreadPoolExecutor(8) as pool:
            assert http.get("/health").status_code == 200
            model = http.get("/v1/models").json()["data"][0]["id"]
            body = {"model": model, "input": "three four", "voice": "ann", "response_format": "wav"}
            inside = [pool.submit(http.post, "/v1/audio/speech", json=body) for _ in range(8)]
            while http.get("/health").json()["in_flight"] < 4:
                assert not all(answer.done() for answer in inside), "the requests were over before SIGTERM"
            process.send_signal(signal.SIGTERM)
            # All were inside, or came so late that they were told to go elsewhere: none is dropped.
            statuses = [answer.result().status_code for answer in inside]
        assert statuses.count(200) >= 4
        assert set(statuses) <= {200, 503}
        assert process.wait(timeout=120) == 0
        assert process.stdout.read() == ""
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
