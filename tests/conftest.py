"""Fixtures of the whole suite: one Ray cluster, and the folder of real recordings."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from benchmarks.recordings import REAL_AUDIO

# Never somebody else's cluster; subprocesses inherit it.
os.environ["RAY_ADDRESS"] = "local"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A loaded machine may stop a process for longer than Hypothesis gives an example (200 ms), or the drawing of some.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray cluster for every test that needs Ray."""
    import ray

    from ray_jobs.session import start_ray

    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def real_audio() -> Path:
    """Real recordings with transcripts, beside the checkout. Skips where they are absent."""
    if not (REAL_AUDIO / "manifest.jsonl").exists():
        pytest.skip("no real recordings: benchmarks/recordings.py says where they are looked for")
    return REAL_AUDIO
