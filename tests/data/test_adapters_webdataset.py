"""WebDataset tars, plain and compressed: samples by key, broken and oversized members."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from data.audio import load_audio
from data.corpus.adapters import webdataset
from data.corpus.brought import content_id
from tests.data.tiny_corpora import RATE, brought, config, decoded, encoded, write


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


SAMPLES = {
    "0001.flac": encoded(0.5, "FLAC", 150.0),
    "0001.json": json.dumps({"text": "one", "speaker": "s1"}).encode(),
    "0002.txt": b"two\n",
    "0002.wav": encoded(0.25, "WAV", 300.0),
    "0003.txt": b"no audio",
    "0004.wav": encoded(),
    "0004.json": b"[1]",
}


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz")])
def test_webdataset(tmp_path: Path, ending: str, mode: str) -> None:
    folder = tmp_path / "shards"
    tar(folder / f"train-000000.{ending}", SAMPLES, mode)
    tar(folder / f"valid-000000.{ending}", SAMPLES, mode)
    found, bad, run = brought("webdataset", folder)
    assert {name: (item.text, item.split) for name, item in found.items()} == {
        "train-000000/0001": ("one", "train"),
        "train-000000/0002": ("two", "train"),
        "valid-000000/0001": ("one", "dev"),
        "valid-000000/0002": ("two", "dev"),
    }
    assert bad["train-000000/0003"] == "missing"
    assert bad["train-000000/0004"] == "bad_field"
    first = found["train-000000/0001"]
    assert first.speaker == "s1"
    np.testing.assert_array_equal(decoded(run, first), _wave("0001.flac", tmp_path))
    if ending == "tar":
        assert "#bytes=" in first.audio_filepath
        assert not (run / "audio").exists()


def _wave(name: str, folder: Path) -> np.ndarray:
    write(folder / name, SAMPLES[name])
    return load_audio(str(folder / name), RATE)


def test_a_broken_off_tar_keeps_what_comes_before(tmp_path: Path) -> None:
    tar(tmp_path / "shards/a.tar", SAMPLES)
    content = (tmp_path / "shards/a.tar").read_bytes()
    second = content.index(b"0002.wav")
    write(tmp_path / "shards/a.tar", content[: second + 700])
    found, bad, _ = brought("webdataset", tmp_path / "shards")
    assert set(found) == {"a/0001"}
    assert "unreadable" in bad.values()


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_broken_header_inside_a_tar_is_no_silent_end(tmp_path: Path, ending: str) -> None:
    tar(tmp_path / "plain.tar", SAMPLES)
    content = bytearray((tmp_path / "plain.tar").read_bytes())
    content[content.index(b"0002.wav") + 150] ^= 1  # the checksum
    packed = gzip.compress(bytes(content)) if ending == "tar.gz" else bytes(content)
    write(tmp_path / f"shards/a.{ending}", packed)
    found, bad, _ = brought("webdataset", tmp_path / "shards")
    assert set(found) == {"a/0001"}
    assert bad == {f"a.{ending}": "unreadable"}


def test_members_of_a_plain_tar_stand_in_any_order(tmp_path: Path) -> None:
    """As `tar cf a.tar *.wav *.txt` writes them."""
    audio = {"0001.wav": encoded(), "._0001.wav": b"of a file system", "0002.wav": encoded(0.25)}
    texts = {"0002.txt": b"two", "0001.txt": b"one"}
    tar(tmp_path / "shards/a.tar", audio | texts)
    found, bad, _ = brought("webdataset", tmp_path / "shards")
    assert {name: (u.text, u.duration) for name, u in found.items()} == {
        "a/0001": ("one", 0.5),
        "a/0002": ("two", 0.25),
    }
    assert bad == {}
    tar(tmp_path / "packed/a.tar.gz", audio | texts, "w:gz")  # read once, front to back
    found, bad, _ = brought("webdataset", tmp_path / "packed")
    assert set(found) == {"a/0001", "a/0002"}
    assert "missing" in bad.values()


def test_of_a_plain_tar_texts_alone_are_kept_in_memory(tmp_path: Path) -> None:
    members = {"1.wav": encoded(), "1.json": b"{}", "1.npy": bytes(9000), "1.txt": b"one"}
    tar(tmp_path / "a.tar", members)
    ((_, parts),) = webdataset._samples(tmp_path / "a.tar")
    assert [content for _, _, content in parts] == [None, b"{}", None, b"one"]


def test_a_second_recording_of_one_sample_is_listed(tmp_path: Path) -> None:
    tar(tmp_path / "shards/a.tar", {"spk.one.wav": encoded(), "spk.two.wav": encoded(), "other.wav": encoded()})
    found, bad, _ = brought("webdataset", tmp_path / "shards")
    assert set(found) == {"a/spk", "a/other"}
    assert bad == {"a/spk#2": "duplicate_id"}


def test_a_tars_id_follows_its_texts_and_not_its_place(tmp_path: Path) -> None:
    for name, samples in (("one", SAMPLES), ("two", SAMPLES), ("three", {**SAMPLES, "0002.txt": b"six\n"})):
        tar(tmp_path / name / "a.tar", samples)
    one, two, three = (content_id(config("webdataset", tmp_path / name)) for name in ("one", "two", "three"))
    assert one == two
    assert one != three
    single = config("webdataset", tmp_path / "one" / "a.tar")
    assert content_id(single) == one


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz")])
def test_members_too_large_for_memory_cost_their_sample_and_are_never_read(
    tmp_path: Path, ending: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = {**SAMPLES, "0005.wav": encoded(2.0), "0006.wav": encoded(0.1), "0006.txt": b"x" * 3000}
    tar(tmp_path / f"shards/a.{ending}", samples, mode)
    monkeypatch.setattr(webdataset, "MAX_FILE_BYTES", 50_000)
    monkeypatch.setattr(webdataset, "_MAX_TEXT_BYTES", 2_000)
    read: list[str] = []
    extract = tarfile.TarFile.extractfile

    def extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> object:
        read.append(member.name)
        return extract(archive, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", extracted)
    found, bad, _ = brought("webdataset", tmp_path / "shards")
    assert set(found) == {"a/0001", "a/0002"}
    assert (bad["a/0005"], bad["a/0006"]) == ("too_large", "too_large")
    assert read
    assert not {"0005.wav", "0006.txt"} & set(read)
