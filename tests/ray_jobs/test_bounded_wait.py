"""Tasks that hang or never start are an error that names them; slow ones that move are not."""

import threading
from pathlib import Path

import pytest
import ray

from data.manifest import Utterance
from data.quarantine import PassedOver
from ray_jobs import bounded_wait
from ray_jobs.bounded_wait import result_of, results_of
from ray_jobs.fit_chunks import Source, over_chunks
from ray_jobs.tokenize_watch import StalledError


def test_the_bound_begins_anew_whenever_any_task_gets_done(monkeypatch):
    done: list[str] = []

    def wait(references, num_returns, timeout):
        done.append(references[len(done)])  # one more within each wait
        return done[:num_returns], references[num_returns:]

    monkeypatch.setattr(bounded_wait.ray, "wait", wait)
    monkeypatch.setattr(bounded_wait.ray, "get", lambda reference: f"result of {reference}")
    assert result_of("c", ["a", "b", "c", "d"], 5.0, "Task(x)") == "result of c"
    assert done == ["a", "b", "c"]


def test_when_none_gets_done_the_error_names_the_operator_and_the_key(monkeypatch):
    monkeypatch.setattr(bounded_wait.ray, "wait", lambda references, num_returns, timeout: (references[:1], []))
    expected = r"Task\(features\) has made no progress for 5 s: 2 of 3 tasks are not done.*raise tokenize.stall_s"
    with pytest.raises(StalledError, match=expected):
        result_of("b", ["a", "b", "c"], 5.0, "Task(features)")


@pytest.mark.ray
def test_a_chunk_that_hangs_ends_the_fit_and_its_process(ray_cluster, tmp_path):
    def hang(chunk, manifest_path, max_duration_s, started):
        if chunk[0].id != "u0":
            Path(started).touch()
            threading.Event().wait()
        return [one.id for one in chunk], PassedOver()

    utterances = [Utterance(f"u{i}", "x.wav", 3600.0) for i in range(3)]
    seed = next(s for s in range(99) if Source(utterances, "m", 1.0, s, 1, 1.0).drawn()[0].id == "u0")
    found = over_chunks(Source(utterances, "m", 1.0, seed, 1, 2.0), hang, str(tmp_path / "started"))
    assert next(found) == "u0"
    with pytest.raises(StalledError, match=r"Task\(hang\) has made no progress for 2 s"):
        next(found)
    assert (tmp_path / "started").exists()
    assert ray.get(ray.remote(num_cpus=1)(lambda: "free again").remote(), timeout=30) == "free again"


@pytest.mark.ray
def test_results_come_in_the_order_asked_for(ray_cluster):
    square = ray.remote(num_cpus=0.5)(lambda x: x * x)
    assert results_of([square.remote(x) for x in (3, 1, 2)], 60.0, "Task(square)") == [9, 1, 4]
