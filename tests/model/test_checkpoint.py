"""Checkpoints that any number of workers can load, and that change nothing on the same number."""

import hashlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data import storage
from data.errors import InputError
from model import checkpoint
from model.checkpoint import load_checkpoint
from model.checkpoint_files import (
    ShardReader,
    assemble_weights,
    complete_checkpoints,
    damage,
    read_manifest,
    step_name,
)
from model.checkpoint_writer import CheckpointWriter
from model.engine import run_step, start_engine
from model.fragments import Fragment
from tests.model.process_group import run_group
from tests.model.tiny_training import VOCABULARY, global_batch, share, tiny_model, train_config

STEPS, SAVED_AT = 6, 3
TOLERANCE = 1e-5
MUON_TOLERANCE = 1e-4  # of weights: its orthogonalisation computes in bfloat16


def _save(folder: str, engine: Any, step: int) -> None:
    writer = CheckpointWriter(timeout_s=60)
    writer.save(folder, engine, {"step": step})
    assert writer.finish() == folder


def _train(
    zero_stage: int, save: str | None, load: str | None, final: str, lora: bool = False, **changes: Any
) -> list[float]:
    """Losses of the steps run; the final state is saved as a checkpoint, to compare weights by."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    train = train_config(zero_stage, **changes)
    # A resumed run gets other first weights: what it ends with can only come from the checkpoint.
    model = tiny_model(seed=1 if lora or load is None else 2, lora=lora)
    engine = start_engine(model, train, "fp32")
    first = load_checkpoint(load, engine)["step"] if load else 0
    losses = []
    for step in range(first, STEPS):
        batch = share(global_batch(step), rank, world_size)
        losses.append(run_step(engine, batch, train, 5e-3 / (step + 1), VOCABULARY.pad_id).loss)
        if save and step + 1 == SAVED_AT:
            _save(save, engine, step + 1)
    _save(final, engine, STEPS)
    return losses


def _weights_hash(folder: Path) -> str:
    weights = assemble_weights(str(folder))
    return hashlib.sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest()


def _check_resume(
    tmp_path: Path, whole: Path, undisturbed: list[float], losses: list[float], exact: bool, weights: float = TOLERANCE
) -> None:
    """Losses and final weights of the resumed run against the undisturbed one."""
    resumed = tmp_path / "resumed"
    assert torch.allclose(torch.tensor(losses), torch.tensor(undisturbed[SAVED_AT:]), atol=TOLERANCE, rtol=0)
    if exact:
        assert losses == undisturbed[SAVED_AT:]
        assert _weights_hash(whole) == _weights_hash(resumed)
    before, after = assemble_weights(str(whole)), assemble_weights(str(resumed))
    assert max((before[name] - after[name]).abs().max().item() for name in before) < weights


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """Folder with `saved` (after step 3) and `whole` (after step 6) of two workers at zero_stage 2; all losses."""
    folder = tmp_path_factory.mktemp("two")
    return folder, run_group(2, _train, 2, str(folder / "saved"), None, str(folder / "whole"))[0]


@pytest.mark.parametrize("loaded_by", [1, 2, 3])
def test_a_resumed_run_goes_on_as_the_undisturbed_one(
    two_workers: tuple[Path, list[float]], tmp_path: Path, loaded_by: int
) -> None:
    folder, undisturbed = two_workers
    losses = run_group(loaded_by, _train, 2, None, str(folder / "saved"), str(tmp_path / "resumed"))[0]
    _check_resume(tmp_path, folder / "whole", undisturbed, losses, exact=loaded_by == 2)


MATRIX = [(zero_stage, *workers, False) for zero_stage in range(4) for workers in ((2, 2), (2, 1), (2, 3), (1, 2))] + [
    (zero_stage, *workers, True) for zero_stage in (0, 2, 3) for workers in ((2, 2), (2, 3))
]


@pytest.mark.slow
@pytest.mark.parametrize(("zero_stage", "saved_by", "loaded_by", "lora"), MATRIX)
def test_every_zero_stage_resumes_on_any_number_of_workers(
    tmp_path: Path, zero_stage: int, saved_by: int, loaded_by: int, lora: bool
) -> None:
    saved, whole, resumed = (str(tmp_path / name) for name in ("saved", "whole", "resumed"))
    undisturbed = run_group(saved_by, _train, zero_stage, saved, None, whole, lora)[0]
    losses = run_group(loaded_by, _train, zero_stage, None, saved, resumed, lora)[0]
    _check_resume(tmp_path, Path(whole), undisturbed, losses, exact=saved_by == loaded_by)


OTHER_OPTIMIZERS = [
    *(({"offload_optimizer": "cpu"}, zero_stage, workers) for zero_stage in (1, 2, 3) for workers in (2, 3)),
    ({"offload_optimizer": "cpu", "offload_parameters": "cpu"}, 3, 1),
    ({"optimizer": "muon"}, 0, 2),
    ({"optimizer": "muon"}, 0, 3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "zero_stage", "loaded_by"), OTHER_OPTIMIZERS)
def test_offloaded_states_and_muon_s_resume_on_any_number_of_workers(
    tmp_path: Path, changes: dict[str, str], zero_stage: int, loaded_by: int
) -> None:
    saved, whole, resumed = (str(tmp_path / name) for name in ("saved", "whole", "resumed"))
    undisturbed = run_group(2, partial(_train, **changes), zero_stage, saved, None, whole)[0]
    losses = run_group(loaded_by, partial(_train, **changes), zero_stage, None, saved, resumed)[0]
    within = MUON_TOLERANCE if "optimizer" in changes else TOLERANCE
    _check_resume(tmp_path, Path(whole), undisturbed, losses, exact=loaded_by == 2, weights=within)


def test_muon_alone_resumes_though_it_counts_no_steps(tmp_path: Path) -> None:
    saved, whole, resumed = (str(tmp_path / name) for name in ("saved", "whole", "resumed"))
    train = partial(_train, lora=True, optimizer="muon")  # adapters are matrices of the layers, all of them
    undisturbed = run_group(1, train, 0, saved, None, whole)[0]
    losses = run_group(1, train, 0, None, saved, resumed)[0]
    _check_resume(tmp_path, Path(whole), undisturbed, losses, exact=True)


def test_the_count_of_steps_lies_where_the_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused AdamW reads it there; on a GPU a count on the host would be read from a wrong address."""
    flat = torch.empty(4, device="meta", requires_grad=True)
    engine = SimpleNamespace(optimizer=torch.optim.AdamW([flat]))
    reader: Any = SimpleNamespace(has=lambda name, kind: "exp" in kind, read=lambda *_: torch.zeros(4))
    monkeypatch.setattr(checkpoint, "owned_fragments", lambda engine: [Fragment("weight", 0, 4, flat, 0)])
    checkpoint._fill(engine, reader, 7)
    assert {name: state.device for name, state in engine.optimizer.state[flat].items()} == dict.fromkeys(
        ("exp_avg", "exp_avg_sq", "step"), flat.device
    )


def _scaled(folder: str) -> float:
    """The loss scale of a fresh engine, before and after it has loaded a checkpoint of one that had 256."""
    train = train_config(2)
    engine = start_engine(tiny_model(), train, "fp32")
    run_step(engine, global_batch(0), train, 1e-3, VOCABULARY.pad_id)
    engine.optimizer.loss_scaler.cur_scale = 256.0
    _save(folder, engine, 1)
    fresh = start_engine(tiny_model(), train, "fp32")
    assert fresh.optimizer.loss_scaler.cur_scale == 1.0
    load_checkpoint(folder, fresh)
    return float(fresh.optimizer.loss_scaler.cur_scale)


def test_the_loss_scale_of_float16_comes_back(tmp_path: Path) -> None:
    assert run_group(1, _scaled, str(tmp_path / step_name(1))) == [256.0]


def _ways(folder: str) -> set[Any]:
    """How the optimizer computes after it has loaded a checkpoint whose optimizer was a fused one."""
    train = train_config(0)
    engine = start_engine(tiny_model(), train, "fp32")
    run_step(engine, global_batch(0), train, 1e-3, VOCABULARY.pad_id)
    _save(folder, engine, 1)
    manifest = read_manifest(folder)
    assert not [group for group in manifest["param_groups"] if "fused" in group]
    older = [{**group, "fused": True} for group in manifest["param_groups"]]  # checkpoints have said so once
    storage.write_json(storage.join(folder, "manifest.json"), {**manifest, "param_groups": older})
    load_checkpoint(folder, engine)
    return {group["fused"] for group in engine.optimizer.param_groups}


def test_a_checkpoint_does_not_say_how_the_next_optimizer_computes(tmp_path: Path) -> None:
    assert run_group(1, _ways, str(tmp_path / step_name(1))) == [{None}]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 0), (0, 2), (3, 1)])
def test_a_checkpoint_loads_at_another_zero_stage(tmp_path: Path, before: int, after: int) -> None:
    saved, whole, resumed = (str(tmp_path / name) for name in ("saved", "whole", "resumed"))
    undisturbed = run_group(2, _train, before, saved, None, whole)[0]
    losses = run_group(2, _train, after, None, saved, resumed)[0]
    assert torch.allclose(torch.tensor(losses), torch.tensor(undisturbed[SAVED_AT:]), atol=TOLERANCE, rtol=0)


def _save_one(folder: str) -> dict[str, np.ndarray]:
    train = train_config(2)
    engine = start_engine(tiny_model(), train, "fp32")
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    run_step(engine, share(global_batch(0), rank, world_size), train, 1e-3, VOCABULARY.pad_id)
    _save(folder, engine, 1)
    return {name: parameter.detach().numpy().copy() for name, parameter in engine.module.lm.named_parameters()}


def _load_other_model(folder: str) -> None:
    engine = start_engine(tiny_model(lora=True), train_config(0), "fp32")
    with pytest.raises(InputError, match="another model"):
        load_checkpoint(folder, engine)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of two workers and the weights it was saved from."""
    folder = tmp_path_factory.mktemp("run") / step_name(1)
    return folder, run_group(2, _save_one, str(folder))[0]


def test_full_weights_are_assembled_without_a_process_group(saved: tuple[Path, dict[str, Any]]) -> None:
    folder, weights = saved
    assembled = assemble_weights(str(folder))
    assert set(assembled) == set(weights)
    assert all(np.array_equal(assembled[name].numpy(), weights[name]) for name in weights)


def test_a_set_without_its_manifest_is_no_checkpoint(saved: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for name in ("step-000001", "step-000002"):
        storage.copy_folder(saved[0], tmp_path / name)
    (tmp_path / "step-000002" / "manifest.json").unlink()
    assert complete_checkpoints(str(tmp_path)) == [str(tmp_path / "step-000001")]
    assert complete_checkpoints(str(tmp_path / "nothing")) == []
    with pytest.raises(InputError, match="no complete checkpoint"):
        read_manifest(str(tmp_path / "step-000002"))


def test_a_missing_shard_or_fragment_is_named(saved: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    storage.copy_folder(saved[0], tmp_path)
    shard = tmp_path / "shard1.safetensors"
    shard.unlink()
    with pytest.raises(InputError, match=r"shard1.* is missing"):
        assemble_weights(str(tmp_path))
    manifest = read_manifest(str(tmp_path))
    storage.write_json(tmp_path / "manifest.json", {**manifest, "world_size": 1})
    with pytest.raises(InputError, match="is damaged"):
        assemble_weights(str(tmp_path))


def test_of_an_object_store_only_the_shards_in_need_are_fetched(
    saved: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "memory://fetched/step-000001"
    storage.copy_folder(saved[0], folder)
    fetched: list[str] = []
    fetch = storage.copy_file
    monkeypatch.setattr(storage, "copy_file", lambda source, target: (fetched.append(source), fetch(source, target)))
    beats: list[None] = []
    with ShardReader(folder, read_manifest(folder), lambda: beats.append(None)) as reader:
        assert "rng" in reader.metadata(1)
        assert fetched == []
        names = {name for name, state in reader._pieces if any(p.shard == 1 for p in reader._pieces[name, state])}
        name = min(names)
        piece = next(piece for piece in reader._pieces[name, "weight"] if piece.shard == 1)
        values = reader.read(name, "weight", piece.start, piece.numel)
        assert fetched == [f"{folder}/shard1.safetensors"]
    assert np.array_equal(values.numpy(), saved[1][name].ravel()[piece.start : piece.start + piece.numel])
    assert len(beats) == 3  # two headers, one reading


def test_a_shard_cut_within_its_header_is_named(saved: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    storage.copy_folder(saved[0], tmp_path)
    shard = tmp_path / "shard0.safetensors"
    for content in (shard.read_bytes()[:30], b"\xff" * 40, b""):
        shard.write_bytes(content)
        with pytest.raises(InputError, match=r"shard0\.safetensors is no shard"):
            assemble_weights(str(tmp_path))


def test_whoever_checks_and_reads_a_checkpoint_says_that_it_gets_on(saved: tuple[Path, dict[str, Any]]) -> None:
    for read in (assemble_weights, lambda folder, alive: damage(folder, 0, read_manifest(folder), alive)):
        beats: list[None] = []
        read(str(saved[0]), lambda beats=beats: beats.append(None))
        assert beats


def test_a_checkpoint_of_another_model_is_refused(saved: tuple[Path, dict[str, Any]]) -> None:
    run_group(1, _load_other_model, str(saved[0]))
