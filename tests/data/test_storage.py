"""The one door to storage."""

import uuid

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from data import storage
from data.errors import InputError


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def test_objects_are_written_whole_and_read_back(folder):
    storage.write_json(storage.join(folder, "a", "b.json"), {"x": [1, "é"]})
    assert storage.read_json(storage.join(folder, "a", "b.json")) == {"x": [1, "é"]}
    storage.write_jsonl(storage.join(folder, "rows.jsonl"), [{"i": 0}, {"i": 1}])
    assert list(storage.read_jsonl(storage.join(folder, "rows.jsonl"))) == [{"i": 0}, {"i": 1}]


def test_a_file_url_gets_its_folders(tmp_path):
    url = f"file://{tmp_path}/new/folder"
    storage.write_jsonl(storage.join(url, "rows.jsonl"), [{"i": 0}])
    storage.write_bytes(storage.join(url, "deeper", "a"), b"x")
    assert storage.list_files(url) == ["deeper/a", "rows.jsonl"]


def test_listing_is_sorted_relative_and_empty_for_an_absent_folder(folder):
    for name in ("z", "a/b", "a/a"):
        storage.write_text(storage.join(folder, name), name)
    assert storage.list_files(folder) == ["a/a", "a/b", "z"]
    assert storage.list_files(storage.join(folder, "absent")) == []


class Remembering(MemoryFileSystem):
    """Keeps what it has listed, as the file systems of object stores do unless told otherwise."""

    protocol = "remembering"

    def exists(self, path: str, **options: object) -> bool:
        parent = self._parent(path)
        if parent in self.dircache:
            return path in self.dircache[parent]
        self.dircache[parent] = list(self.store)
        return path in self.store


def test_what_another_process_has_written_since_is_found():
    fsspec.register_implementation("remembering", Remembering, clobber=True)
    path = f"remembering://{uuid.uuid4().hex}/stop.json"
    assert not storage.exists(path)
    storage.write_json(path, {})
    assert storage.exists(path)


def test_delete_removes_folders_and_forgives_absence(folder):
    storage.write_text(storage.join(folder, "a", "b"), "x")
    storage.delete(storage.join(folder, "a"))
    storage.delete(storage.join(folder, "a"))
    assert not storage.exists(storage.join(folder, "a", "b"))


def test_a_failed_write_leaves_the_old_object_and_no_rubbish(tmp_path, monkeypatch):
    target = tmp_path / "object"
    storage.write_text(target, "old")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "replace", no_space)
    with pytest.raises(OSError, match="No space left"):
        storage.write_text(target, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["object"]
    assert target.read_text() == "old"


def test_copies_between_storages_keep_the_content_hash(tmp_path):
    storage.write_text(tmp_path / "m" / "w" / "x", "weights")
    url = f"memory://{uuid.uuid4().hex}"
    storage.copy_folder(tmp_path / "m", url)
    assert storage.hash_folder(url) == storage.hash_folder(tmp_path / "m")


def test_a_remote_folder_is_cached_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path))
    url = f"memory://{uuid.uuid4().hex}"
    storage.write_text(storage.join(url, "a"), "1")
    first = storage.local_folder(url)
    assert (first / "a").read_text() == "1"
    storage.delete(url)
    assert storage.local_folder(url) == first


def test_a_remote_folder_that_another_process_fetches_meanwhile_stays_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path))
    url = f"memory://{uuid.uuid4().hex}"
    for name in ("a", "b"):
        storage.write_text(storage.join(url, name), name)
    copy_file, others = storage.copy_file, []

    def meeting(source, target):
        if str(source).endswith("/b") and not others:  # this process has half of it when another comes and is faster
            others.append(None)
            others[0] = storage.local_folder(url)
        copy_file(source, target)

    monkeypatch.setattr(storage, "copy_file", meeting)
    found = storage.local_folder(url)
    assert found == others[0]
    assert {path.name: path.read_text() for path in found.iterdir()} == {"a": "a", "b": "b"}
    assert list(found.parent.iterdir()) == [found]


def test_a_remote_folder_that_could_not_be_fetched_whole_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path))
    url = f"memory://{uuid.uuid4().hex}"
    storage.write_text(storage.join(url, "a"), "1")
    with monkeypatch.context() as broken:
        broken.setattr(storage, "copy_file", lambda source, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            storage.local_folder(url)
    assert (storage.local_folder(url) / "a").read_text() == "1"


def test_a_remote_folder_that_is_not_there_is_an_error_and_leaves_no_empty_one(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path))
    url = f"memory://{uuid.uuid4().hex}"
    with pytest.raises(InputError, match=f"nothing at '{url}'"):
        storage.local_folder(url)
    storage.write_text(storage.join(url, "a"), "1")
    assert (storage.local_folder(url) / "a").read_text() == "1"


def test_absolute_names_replace_the_folder():
    assert storage.join("runs", "/data/x") == "/data/x"
    assert storage.join("runs", "s3://bucket/x") == "s3://bucket/x"
    assert storage.join("s3://bucket/", "x", "y") == "s3://bucket/x/y"


def test_a_range_is_what_a_slice_is(folder):
    storage.write_text(storage.join(folder, "x"), "0123456789")
    for start, end in [(0, 4), (3, 10), (8, 99), (20, 30), (5, 5)]:
        assert storage.read_range(storage.join(folder, "x"), start, end) == b"0123456789"[start:end]
    with pytest.raises(ValueError, match="no range"):
        storage.read_range(storage.join(folder, "x"), 4, 2)
    with pytest.raises(FileNotFoundError):
        storage.read_range(storage.join(folder, "absent"), 0, 1)
