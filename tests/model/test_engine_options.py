"""What may be switched on beside the plain step: each must compute the same steps, or be refused."""

import dataclasses
import functools
import os
from typing import Any

import pytest
import torch

from data.errors import InputError
from model.engine import compile_layers, run_step, start_engine
from model.loss_parts import LossParts, source_ids
from model.train_step import StepLoss, TensorBatch
from tests.model.process_group import run_group
from tests.model.tiny_training import VOCABULARY, global_batch, share, tiny_model, train_config

PARTS = LossParts.of(("asr", "tts"), VOCABULARY)


def _steps(zero_stage: int, lora: bool = False, **fields: Any) -> list[tuple[float, float]]:
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    # Inductor's pool of compilers hangs in a fork of a fork server; compiled here, nothing is forked.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    train = train_config(zero_stage, **fields)
    engine = start_engine(tiny_model(lora=lora), train, "fp32")
    results = [
        run_step(engine, share(global_batch(step), rank, world_size), train, 5e-3, VOCABULARY.pad_id)
        for step in range(3)
    ]
    return [(result.loss, result.grad_norm) for result in results]


def _with(zero_stage: int, fields: dict[str, Any], lora: bool = False) -> list[tuple[float, float]]:
    return _steps(zero_stage, lora, **fields)


CASES = [
    pytest.param(2, {"activation_checkpointing": True}, id="checkpointing-2", marks=pytest.mark.slow),
    pytest.param(3, {"activation_checkpointing": True}, id="checkpointing-3"),
    pytest.param(1, {"offload_optimizer": "cpu"}, id="offload-1", marks=pytest.mark.slow),
    pytest.param(2, {"offload_optimizer": "cpu"}, id="offload-2", marks=pytest.mark.slow),
    pytest.param(3, {"offload_optimizer": "cpu", "offload_parameters": "cpu"}, id="offload-3"),
    pytest.param(0, {"compile": True}, id="compile-0", marks=pytest.mark.slow),
    pytest.param(2, {"compile": True, "activation_checkpointing": True}, id="compile-2", marks=pytest.mark.slow),
    pytest.param(
        2, {"deepspeed": {"zero_optimization": {"reduce_bucket_size": 1000}}}, id="extra", marks=pytest.mark.slow
    ),
]


@functools.cache
def _reference() -> list[tuple[float, float]]:
    return run_group(1, _with, 0, {})[0]


@pytest.mark.parametrize(("zero_stage", "fields"), CASES)
def test_every_option_computes_the_same_steps(zero_stage: int, fields: dict[str, Any]) -> None:
    reference = _reference()
    for results in run_group(2, _with, zero_stage, fields):
        assert torch.allclose(torch.tensor(results), torch.tensor(reference), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_adapters_with_activation_checkpointing_compute_the_same_steps() -> None:
    reference = run_group(1, _with, 0, {}, True)[0]
    for results in run_group(2, _with, 3, {"activation_checkpointing": True}, True):
        assert torch.allclose(torch.tensor(results), torch.tensor(reference), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_compiled_layers_are_compiled_with_activation_checkpointing_too(
    checkpointed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def backend(graph: Any, inputs: list[torch.Tensor]) -> Any:
        seen.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(torch.nn.Module.compile, backend=backend))
    lm, batch = tiny_model(), global_batch(0)
    module = StepLoss(lm, compiled=True)
    if checkpointed:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    compile_layers(lm, checkpointed)
    module(batch, 1.0)[0].backward()
    assert len(seen) >= 3


def _refused() -> None:
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        start_engine(tiny_model(), train_config(1), "fp16")
    with pytest.raises(InputError, match="no backward pass on CPUs"):
        start_engine(tiny_model(), train_config(1, attention="flex"), "fp32")
    capped = tiny_model()
    capped.config.final_logit_softcapping = 30.0
    with pytest.raises(InputError, match="changes its logits"):
        start_engine(capped, train_config(1), "fp32")


def test_what_cannot_be_trained_here_is_refused() -> None:
    run_group(1, _refused)


def _with_sources(step: int) -> TensorBatch:
    """Documents of every row by turns of asr and tts."""
    batch = global_batch(step)
    documents_BT = (batch.position_ids_BT == 0).cumsum(1) - 1
    return dataclasses.replace(batch, sources_BT=documents_BT % 2)


def _parted(zero_stage: int) -> list[tuple[float, dict[str, float], dict[str, float]]]:
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    train = train_config(zero_stage)
    engine = start_engine(tiny_model(), train, "fp32", train.phases[0], PARTS)
    results = []
    for step in range(2):
        result = run_step(engine, share(_with_sources(step), rank, world_size), train, 5e-3, VOCABULARY.pad_id)
        results.append((result.loss, dict(result.source_losses), dict(result.modality_losses)))
    return results


def test_losses_by_source_and_modality_make_up_the_loss_for_any_number_of_workers() -> None:
    one = run_group(1, _parted, 0)[0]
    batch = _with_sources(0)
    target_BT = (batch.labels_BT[:, 1:] != -100) & (batch.position_ids_BT[:, 1:] != 0)
    labels_N, weights_N = batch.labels_BT[:, 1:][target_BT], batch.weights_BT[:, 1:][target_BT]
    assert batch.sources_BT is not None
    sources_N = batch.sources_BT[:, 1:][target_BT]
    loss, by_source, by_modality = one[0]
    share_of = {name: float(weights_N[sources_N == i].sum() / weights_N.sum()) for i, name in enumerate(("asr", "tts"))}
    assert sum(by_source[name] * share_of[name] for name in by_source) == pytest.approx(loss, abs=1e-6)
    bounds = {"text": (0, 60), "marker": (60, 64), "unit": (64, 94)}
    weight_of = {
        name: float(weights_N[(labels_N >= low) & (labels_N < high)].sum() / weights_N.sum())
        for name, (low, high) in bounds.items()
    }
    assert set(by_modality) == set(bounds)
    assert sum(by_modality[name] * weight_of[name] for name in bounds) == pytest.approx(loss, abs=1e-6)
    for found in run_group(3, _parted, 2):
        for (loss, sources, modalities), (loss_one, sources_one, modalities_one) in zip(found, one, strict=True):
            assert loss == pytest.approx(loss_one, abs=1e-5)
            assert sources == pytest.approx(sources_one, abs=1e-5)
            assert modalities == pytest.approx(modalities_one, abs=1e-5)


def test_each_token_knows_its_documents_source() -> None:
    positions_BT = torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7]]).numpy()
    ids_BT = source_ids(positions_BT, (("tts", "asr"), ()), ("asr", "tts"))
    assert ids_BT.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [0] * 8]


def test_parts_without_a_target_are_left_out() -> None:
    sums_K2 = torch.tensor([[3.0, 2.0], [0.0, 0.0], [0.0, 0.0], [1.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    assert PARTS.means(sums_K2) == ({"asr": 1.5}, {"marker": 0.25})
