import gzip
import io
import json
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data.errors import InputError
from model.convert import convert, main

CENTROIDS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


class Hostile:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch hacked",)


def kmeans_class(name: str, monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that pickles under scikit-learn's name."""
    import sys

    module = type(sys)("sklearn.cluster._kmeans")
    kind = type(name, (), {"__module__": module.__name__, "__qualname__": name})
    setattr(module, name, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return kind


def converted(path: Path, content: bytes) -> np.ndarray:
    path.write_bytes(content)
    written = convert(str(path), str(path.parent / "out"))
    return load_file(written)["centroids"].numpy()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_pickled_kmeans_of_any_protocol_gives_its_centroids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, order: str
) -> None:
    kmeans = kmeans_class("MiniBatchKMeans", monkeypatch)()
    kmeans.__dict__.update(cluster_centers_=np.asarray(CENTROIDS, order=order), inertia_=np.float64(3), n_clusters=5)
    np.testing.assert_array_equal(converted(tmp_path / "km.bin", pickle.dumps(kmeans, protocol)), CENTROIDS)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3)])
def test_a_kmeans_that_joblib_dumped_gives_its_centroids(tmp_path: Path, compress: object) -> None:
    joblib, cluster = pytest.importorskip("joblib"), pytest.importorskip("sklearn.cluster")
    points = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    for kmeans in (cluster.MiniBatchKMeans(5, n_init=1), cluster.KMeans(5, n_init=1)):
        kmeans.fit(points)
        joblib.dump(kmeans, tmp_path / "dump", compress=compress)
        found = converted(tmp_path / "km.bin", (tmp_path / "dump").read_bytes())
        np.testing.assert_array_equal(found, kmeans.cluster_centers_)


def test_a_dump_of_joblib_before_1_2_has_no_padding_before_its_arrays(tmp_path: Path) -> None:
    numpy_pickle = pytest.importorskip("joblib.numpy_pickle")
    wrapper = numpy_pickle.NumpyArrayWrapper(np.ndarray, CENTROIDS.shape, "C", CENTROIDS.dtype)
    del wrapper.numpy_array_alignment_bytes
    pickled = pickle.dumps(wrapper, 3)
    # the stop of the pickle comes behind the array's bytes
    content = pickled[:-1] + CENTROIDS.tobytes() + pickled[-1:]
    np.testing.assert_array_equal(converted(tmp_path / "km.bin", content), CENTROIDS)


def test_centroids_saved_by_numpy_convert_too(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, CENTROIDS.astype(np.float64))
    np.testing.assert_allclose(converted(tmp_path / "km.npy", buffer.getvalue()), CENTROIDS, rtol=1e-6)


def test_an_array_of_text_is_no_centroids(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([["a", "b"]]))
    with pytest.raises(InputError, match="<U1"):
        converted(tmp_path / "km.npy", buffer.getvalue())


def test_a_malicious_pickle_is_refused_by_name_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "km.bin").write_bytes(pickle.dumps(Hostile()))
    assert main(["km.bin", "out"]) == 2
    assert "posix.system" in capsys.readouterr().err
    torch.save({"weight": torch.ones(2), "extra": Hostile()}, tmp_path / "weights.pt")
    assert main(["weights.pt", "out"]) == 2
    assert "posix.system" in capsys.readouterr().err
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "out").exists()


def test_a_malicious_part_inside_an_admitted_kmeans_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kmeans = kmeans_class("KMeans", monkeypatch)()
    kmeans.__dict__.update(cluster_centers_=CENTROIDS, callback=Hostile())
    with pytest.raises(InputError, match=r"posix\.system"):
        converted(tmp_path / "km.bin", pickle.dumps(kmeans))
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([[SimpleNamespace]], dtype=object),
        np.zeros((2, 2), dtype="V8"),
        np.zeros(3, np.float32),
        np.full((2, 2), np.nan),
        np.zeros((0, 2), np.float32),
        {"cluster_centers_": 3},
    ],
    ids=["objects", "raw bytes", "a vector", "not finite", "empty", "no array"],
)
def test_a_pickle_without_a_finite_matrix_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError):
        converted(tmp_path / "km.bin", pickle.dumps(value))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zlib.compress], ids=["plain", "gzip", "zlib"])
def test_a_cut_pickle_is_an_error_with_a_next_step(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(pickle.dumps(CENTROIDS))
    for end in range(1, len(whole)):
        with pytest.raises(InputError):
            converted(tmp_path / "km.bin", whole[:end])


@pytest.mark.parametrize("wrapped", [None, "state_dict", "generator"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_torch_file_keeps_its_names_and_its_settings(tmp_path: Path, wrapped: str | None, zipped: bool) -> None:
    source = tmp_path / "published"
    source.mkdir()
    shared = torch.arange(6.0).view(2, 3).t()  # neither contiguous nor alone in its memory
    state = {"a.weight_g": shared, "b": shared[0], "half": torch.ones(2, dtype=torch.float16)}
    content = {wrapped: state, "step": 7} if wrapped else state
    torch.save(content, source / "model.pt", _use_new_zipfile_serialization=zipped)
    (source / "config.json").write_text(json.dumps({"n_q": 8}))
    written = convert(str(source), str(tmp_path / "out"))
    found = load_file(written)
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(found[name], value)
        assert found[name].dtype == value.dtype
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"n_q": 8}


def test_the_target_may_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "model.pt")
    target = str(tmp_path / "weights.safetensors")
    assert main([str(tmp_path / "model.pt"), target]) == 0
    assert capsys.readouterr().out.strip() == target
    assert load_file(target)["x"].tolist() == [1.0]


def test_what_is_no_weights_is_refused_with_what_it_begins_with(tmp_path: Path) -> None:
    (tmp_path / "readme.bin").write_text("hello world")
    with pytest.raises(InputError, match="hello"):
        convert(str(tmp_path / "readme.bin"), str(tmp_path / "out"))
    with pytest.raises(InputError, match="is not there"):
        convert(str(tmp_path / "absent.pt"), str(tmp_path / "out"))
