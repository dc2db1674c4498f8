"""How Ray's processes run."""

import os
from types import SimpleNamespace

import pytest
import ray
from ray._private.utils import set_visible_accelerator_ids

from ray_jobs.session import WORKER_ENV


@pytest.mark.parametrize(("given", "seen"), [([], ""), (["3"], "3")])
def test_a_worker_sees_the_gpus_that_it_asked_for_and_no_others(monkeypatch, given, seen):
    for name, value in WORKER_ENV.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": given})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    set_visible_accelerator_ids()  # as every worker does before its first task
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
