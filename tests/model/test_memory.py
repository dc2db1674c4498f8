"""The estimate before a training starts, and the advice where it will not fit."""

from typing import Any

import pytest
import torch

from data.errors import InputError
from model import memory
from model.engine import start_engine
from model.memory import ModelShape, advise, check_memory, estimate_memory
from tests.model.process_group import run_group
from tests.model.tiny_training import tiny_model, train_config

GIB = 2**30
SEVEN_B = ModelShape(6_740_000_000, 6_740_000_000, 32, 4096, 8192, 11008, 32_000)


def _train(zero_stage: int, **fields: Any) -> Any:
    return train_config(zero_stage, **{"sequence_length": 2048, "global_batch_rows": 64, **fields})


def test_states_follow_the_zero_paper() -> None:
    sizes = [estimate_memory(SEVEN_B, _train(stage), 64, "bf16", True) for stage in range(4)]
    weights = 4 * SEVEN_B.parameters
    assert sizes[0].states == 4 * weights
    assert sizes[1].states == pytest.approx(2 * weights + 3 * weights / 64)
    assert sizes[2].states == pytest.approx(weights + 4 * weights / 64)
    assert sizes[3].states == pytest.approx(5 * weights / 64)
    assert estimate_memory(SEVEN_B, _train(3), 64, "fp16", True).optimizer == pytest.approx(3 * weights / 64)


def _storages(dtype: str) -> tuple[set[int], set[int]]:
    """Where the partition of stage 3 lies, and where its master copy does."""
    optimizer = start_engine(tiny_model(), train_config(3, dtype=dtype), dtype).optimizer
    flats = optimizer.fp16_partitioned_groups_flat, optimizer.fp32_partitioned_groups_flat
    partition, master = ({flat.untyped_storage().data_ptr() for flat in group} for group in flats)
    return partition, master


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_zero_stage_3_keeps_a_master_copy_of_float32_weights_too(dtype: str) -> None:
    ((partition, master),) = run_group(1, _storages, dtype)
    assert partition
    assert not partition & master


@pytest.mark.parametrize(("stage", "peak_mb"), enumerate((2166, 2445, 2373, 2947)))
def test_on_cpus_the_estimate_is_near_what_the_benchmark_measured(stage: int, peak_mb: int) -> None:
    shape = ModelShape(111_166_464, 111_166_464, 8, 1024, 2048, 2816, 8192)
    train = _train(stage, sequence_length=256, global_batch_rows=2, micro_batch_rows=1)
    assert estimate_memory(shape, train, 2, "bf16", False).device / 1e6 == pytest.approx(peak_mb, rel=0.15)


def test_offload_moves_states_to_the_host_and_adapters_need_few() -> None:
    train = _train(3, offload_optimizer="cpu", offload_parameters="cpu")
    found = estimate_memory(SEVEN_B, train, 8, "bf16", True)
    assert (found.weights, found.optimizer) == (0, 0)
    assert found.offloaded == pytest.approx(5 * 4 * SEVEN_B.parameters / 8)
    adapters = ModelShape(**{**vars(SEVEN_B), "trainable": 40_000_000})
    assert estimate_memory(adapters, _train(0), 1, "bf16", True).states < 1.1 * 4 * SEVEN_B.parameters


def test_the_copy_that_a_checkpoint_is_written_from_must_fit_the_host() -> None:
    for train, gpu in ((_train(2), True), (_train(1), False)):
        found = estimate_memory(SEVEN_B, train, 8, "fp32", gpu)
        assert found.host == pytest.approx(12 * SEVEN_B.parameters / 8)
        device, host = (found.device, found.host) if gpu else (found.device + found.host, 0)
        assert advise(SEVEN_B, train, 8, "fp32", gpu, device, host) is None
        assert advise(SEVEN_B, train, 8, "fp32", gpu, device - (not gpu), host - gpu) is not None


def test_the_probe_s_second_model_is_in_the_host_s_memory_and_can_be_left_out() -> None:
    train = _train(2, validate_every=10, probe_utterances=4)
    plain, probing = (estimate_memory(SEVEN_B, one, 8, "bf16", True) for one in (_train(2), train))
    assert probing.host - plain.host == 12 * SEVEN_B.parameters
    assert probing.device == plain.device
    asked = advise(SEVEN_B, train, 8, "bf16", True, probing.device, plain.host)
    assert asked == "set train.probe_utterances=0"
    assert estimate_memory(SEVEN_B, _train(2, probe_utterances=4), 8, "bf16", True) == plain  # never validates


def test_activation_checkpointing_and_chunks_cut_what_grows_with_rows() -> None:
    plain = estimate_memory(SEVEN_B, _train(2, micro_batch_rows=4, cross_entropy="whole"), 8, "bf16", True)
    train = _train(2, micro_batch_rows=4, activation_checkpointing=True)
    kept = estimate_memory(SEVEN_B, train, 8, "bf16", True)
    assert kept.activations < plain.activations / 5
    assert (
        estimate_memory(SEVEN_B, _train(2, micro_batch_rows=1), 8, "bf16", True).activations == plain.activations // 4
    )
    assert kept.logits < plain.logits


@pytest.mark.parametrize(
    ("train", "world_size", "gib", "advice"),
    [
        (_train(3, micro_batch_rows=2), 64, 75, None),
        (_train(3, micro_batch_rows=8), 64, 60, "set train.micro_batch_rows=1"),
        (_train(3), 64, 12, "set train.activation_checkpointing=true"),
        (_train(0, activation_checkpointing=True), 64, 45, "set train.zero_stage=2"),
        (_train(3, activation_checkpointing=True), 1, 40, "offload_optimizer=cpu, train.offload_parameters=cpu"),
        (_train(3, activation_checkpointing=True), 1, 1, "use more workers"),
    ],
)
def test_the_knob_that_makes_it_fit_is_named(train: Any, world_size: int, gib: int, advice: str | None) -> None:
    found = advise(SEVEN_B, train, world_size, "bf16", True, gib * GIB, 400 * GIB)
    assert found is None if advice is None else advice in str(found)


def test_states_that_cannot_fit_are_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    states = 16 * sum(weight.numel() for weight in model.parameters())
    assert "free" in check_memory(model, train_config(0), 1, "fp32")
    monkeypatch.setattr(memory, "_free_host_bytes", lambda: states)
    assert "may not fit; " in check_memory(model, train_config(0), 1, "fp32")
    monkeypatch.setattr(memory, "_free_host_bytes", lambda: states // 4)
    with pytest.raises(InputError, match=r"states do not fit; (set|use more)"):
        check_memory(model, train_config(0), 1, "fp32")


def test_what_a_phase_before_left_in_pytorch_s_cache_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * GIB, 140 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 130 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 * GIB)
    assert memory._free_device_bytes(torch.device("cuda", 0)) == 125 * GIB


def test_a_shape_is_read_off_a_model_without_values() -> None:
    with torch.device("meta"):
        empty = ModelShape.of(tiny_model())
    assert empty == ModelShape.of(tiny_model())
    assert (empty.layers, empty.width, empty.trainable) == (2, 32, empty.parameters)
