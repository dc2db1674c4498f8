"""Which checkpoints stay, and what a shard on storage says of its own state."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data import storage
from model.checkpoint_files import (
    FORMAT_VERSION,
    MANIFEST,
    complete_checkpoints,
    damage,
    newest_readable,
    shard_name,
    step_name,
    step_of,
    write_shard,
)
from model.checkpoint_retention import intact, retire
from model.train_config import KeepBest


def _checkpoint(root: Path, step: int, **metrics: float) -> Path:
    """A checkpoint of one worker and a few numbers."""
    folder = root / step_name(step)
    facts = write_shard(str(folder / shard_name(0)), {"w|weight|0": torch.arange(5.0) + step}, {"rng": "{}"})
    manifest = {"format_version": FORMAT_VERSION, "world_size": 1, "shards": [vars(facts)], "metrics": metrics}
    storage.write_json(folder / MANIFEST, manifest)
    return folder


def _kept(root: Path) -> list[int]:
    return [step_of(folder) for folder in complete_checkpoints(str(root))]


@pytest.mark.parametrize(
    ("best", "kept"),
    [
        (None, [40, 50]),
        (KeepBest(metric="loss", count=2), [10, 20, 40, 50]),
        (KeepBest(metric="loss", mode="max"), [30, 40, 50]),
        (KeepBest(metric="validation/asr", mode="max"), [20, 40, 50]),
        (KeepBest(metric="unheard"), [40, 50]),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path: Path, best: KeepBest | None, kept: list[int]) -> None:
    for step, loss in ((10, 1.0), (20, 1.5), (30, 9.0), (40, float("nan")), (50, 5.0)):
        held_out = {"validation/asr": 0.5} if step == 20 else {}
        _checkpoint(tmp_path, step, loss=loss, **held_out)
    retire(str(tmp_path), 2, best)
    assert _kept(tmp_path) == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [step_name(step) for step in kept]


def test_a_metric_that_no_checkpoint_has_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _checkpoint(tmp_path, 10, loss=1.0)
    retire(str(tmp_path), 1, KeepBest(metric="los"))
    assert "train.keep_best.metric='los' is in no checkpoint, which have ['loss']" in caplog.text


def test_a_shard_is_a_safetensors_file_whose_every_byte_counts(tmp_path: Path) -> None:
    path = tmp_path / shard_name(0)
    tensors = {"a": torch.arange(7.0), "empty": torch.empty(0), "b": torch.full((3,), -2.5)}
    facts = write_shard(str(path), tensors, {"rng": "äö"})
    found = load_file(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    manifest = {"shards": [vars(facts)]}
    assert damage(str(tmp_path), 0, manifest) is None
    content = path.read_bytes()
    for place in (0, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert "another checksum" in str(damage(str(tmp_path), 0, manifest))
    path.write_bytes(content[:-1])
    assert f"has {len(content) - 1} of its {len(content)} bytes" in str(damage(str(tmp_path), 0, manifest))


def test_a_checkpoint_with_an_unreadable_manifest_is_not_intact_and_the_one_before_is_read(tmp_path: Path) -> None:
    older, newer = _checkpoint(tmp_path, 10), _checkpoint(tmp_path, 20)
    assert intact(str(newer))
    (newer / MANIFEST).write_text("{")
    assert not intact(str(newer))
    found = newest_readable(str(tmp_path))
    assert found is not None
    assert found[0] == str(older)
    assert newest_readable(str(tmp_path / "none")) is None


def test_an_object_that_finds_no_room_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: .*target"), storage.writing(tmp_path / "target"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
