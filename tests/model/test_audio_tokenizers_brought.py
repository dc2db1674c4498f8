"""Brought weights: copied whole, named by content and not by path, refused with a remedy."""

import os

import pytest

from data.errors import InputError
from data.frozen import Frozen
from model.audio_tokenizers.brought import bring_weights, brought_paths, content_ids, unpinned, weights_location


class Brought(Frozen):
    path: str
    kmeans_path: str | None = None
    layer: int = 9


def make_weights(folder, content=b"weights"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return str(folder)


def test_a_folder_is_copied_without_what_is_not_loaded(tmp_path):
    source = bring_weights(make_weights(tmp_path / "model"), None, str(tmp_path / "run/unit"))
    path, revision = weights_location(str(tmp_path / "run/unit"), source)
    assert sorted(os.listdir(path)) == ["config.json", "model.safetensors"]
    assert revision is None


def test_content_names_weights_wherever_they_lie(tmp_path):
    first, same = (Brought(path=make_weights(tmp_path / name)) for name in ("a", "b"))
    other = Brought(path=make_weights(tmp_path / "c", b"other"))
    assert content_ids(first) == content_ids(same) != content_ids(other)
    (tmp_path / "a/model.safetensors").write_bytes(b"changed")
    assert content_ids(first) != content_ids(same)


def test_files_of_other_fields_count_and_hub_ids_do_not(tmp_path):
    (tmp_path / "km.safetensors").write_bytes(b"centroids")
    config = Brought(path="facebook/hubert-base-ls960", kmeans_path=str(tmp_path / "km.safetensors"))
    assert list(brought_paths(config)) == ["kmeans_path"]
    assert len(content_ids(config)) == 1


def test_a_folder_of_pickles_is_refused_with_the_remedy(tmp_path):
    folder = make_weights(tmp_path / "model")
    os.remove(tmp_path / "model/model.safetensors")
    (tmp_path / "empty").mkdir()
    assert content_ids(Brought(path=str(tmp_path / "empty"))) != content_ids(Brought(path=folder))
    with pytest.raises(InputError, match=r"holds config\.json, expected .* convert"):
        bring_weights(folder, None, str(tmp_path / "unit"))


def test_a_name_that_is_neither_folder_nor_model_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="neither a folder here nor a model"):
        bring_weights("no/such-model", None, str(tmp_path / "unit"))


def test_only_a_hub_id_without_a_commit_is_unpinned(tmp_path):
    class Pinned(Brought):
        revision: str | None = None

    assert unpinned(Pinned(path="a/b")) == "a/b"
    assert unpinned(Pinned(path="a/b", revision="0" * 40)) is None
    assert unpinned(Pinned(path=make_weights(tmp_path / "here"))) is None
    assert unpinned(Brought(path="a/b")) is None


def test_a_hub_id_needs_the_commit_and_the_error_says_which_it_is(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    asked = []

    def cached_file(path, name, revision):
        asked.append(revision)
        return str(tmp_path / "models--a--b/snapshots" / commit / name)

    monkeypatch.setattr("transformers.utils.hub.cached_file", cached_file)
    (tmp_path / "models--a--b/snapshots" / commit).mkdir(parents=True)
    (tmp_path / "models--a--b/snapshots" / commit / "config.json").write_text("{}")
    for moving in (None, "main", "v1.0", commit[:8]):
        with pytest.raises(InputError, match=rf"revision is {moving!r}.*revision: {commit}, which"):
            bring_weights("a/b", moving, str(tmp_path / "unit"))
    assert bring_weights("a/b", commit, str(tmp_path / "unit")) == {"path": "a/b", "revision": commit}
    assert asked == ["main", "main", "v1.0", commit[:8], commit]
