"""The ways of computing the loss over a large vocabulary, against float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

from data.errors import InputError
from model import cross_entropy
from model.cross_entropy import TargetLoss, Targets, check_logits, choose_cross_entropy, chunk_tokens
from model.lm import add_lora
from model.train_config import LoraConfig
from model.train_step import StepLoss
from tests.model.process_group import run_group
from tests.model.tiny_training import VOCABULARY, global_batch, share, tiny_model, train_config

NUM, WIDTH, VOCAB = 70, 16, 300


class _WithBias(torch.nn.Linear):
    """A head that is more than its weight."""


def _case(dtype: torch.dtype, bias: bool = False) -> tuple[torch.Tensor, torch.nn.Linear, Targets]:
    generator = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(NUM, WIDTH, generator=generator, dtype=torch.float64)
    head = (_WithBias if bias else torch.nn.Linear)(WIDTH, VOCAB, bias=bias).double()
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    targets = Targets(
        torch.randint(0, VOCAB, (NUM,), generator=generator),
        torch.randint(0, 3, (NUM,), generator=generator).float(),
        torch.tensor(211.0),
    )
    return hidden_NH.to(dtype).requires_grad_(), head.to(dtype), targets


def _reference(z_loss: float, bias: bool) -> tuple[torch.Tensor, ...]:
    hidden_NH, head, targets = _case(torch.float64, bias)
    logits_NV = head(hidden_NH)
    losses_N = F.cross_entropy(logits_NV, targets.labels_N, reduction="none")
    with_z_N = losses_N + z_loss * logits_NV.logsumexp(-1) ** 2
    loss = (with_z_N * targets.weights_N.double()).sum() / 211.0
    (loss * 6).backward()
    return loss.detach(), losses_N.detach(), hidden_NH.grad, head.weight.grad


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("way", "dtype"), [("whole", torch.float32), ("chunked", torch.float32), ("chunked", torch.float64)]
)
def test_every_way_gives_the_loss_and_gradients_of_float64(
    way: Any, dtype: torch.dtype, bias: bool, z_loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "chunk_tokens", lambda *_: 16)  # four whole chunks and a rest
    hidden_NH, head, targets = _case(dtype, bias)
    loss, losses_N = TargetLoss(head, way, z_loss)(hidden_NH, targets)
    (loss * 6).backward()
    found = (loss, losses_N, hidden_NH.grad, head.weight.grad)
    exact = dtype == torch.float64 and way == "chunked" and not bias  # else logits are float32
    tolerance = 1e-12 if exact else 2e-5
    for got, expected in zip(found, _reference(z_loss, bias), strict=True):
        assert got is not None
        assert torch.allclose(got.double(), expected, atol=tolerance, rtol=tolerance)


def test_chunks_under_autocast_stay_near_float64() -> None:
    hidden_NH, head, targets = _case(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = TargetLoss(head, "chunked")(hidden_NH, targets)
    loss.backward()
    expected, _, _, grad_weight_VH = _reference(0.0, False)
    assert torch.allclose(loss.double(), expected, rtol=1e-2)
    assert hidden_NH.grad is not None
    assert hidden_NH.grad.dtype == torch.float32
    error = (head.weight.grad.double() * 6 - grad_weight_VH).norm() / grad_weight_VH.norm()
    assert error < 1e-2


def test_a_frozen_head_gets_no_gradient_and_validation_no_z_loss() -> None:
    hidden_NH, head, targets = _case(torch.float32)
    head.requires_grad_(False)
    module = TargetLoss(head, "chunked", z_loss=0.1)
    module(hidden_NH, targets)[0].backward()
    assert head.weight.grad is None
    assert hidden_NH.grad is not None
    assert torch.allclose(module.eval()(hidden_NH, targets)[0].double(), _reference(0.0, False)[0], rtol=1e-5)


def test_validation_sums_up_no_gradient_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden_NH, head, targets = _case(torch.float32)
    monkeypatch.delattr(torch, "zeros_like")  # what the gradient of the whole vocabulary would begin with
    with torch.no_grad():
        loss, _ = TargetLoss(head, "chunked")(hidden_NH, targets)
    assert torch.allclose(loss.double(), _reference(0.0, False)[0], rtol=1e-5)


def test_models_that_change_their_logits_afterwards_are_refused() -> None:
    for config in (Gemma2Config(), CohereConfig(), GraniteConfig(logits_scaling=8.0)):
        with pytest.raises(InputError, match="changes its logits after the output layer"):
            check_logits(config)
    for config in (LlamaConfig(), GraniteConfig(), tiny_model().config):
        check_logits(config)


def test_no_chunk_holds_more_logits_than_its_bytes() -> None:
    for vocabulary_size in (33_000, 152_000):
        tokens = chunk_tokens(vocabulary_size, torch.device("cpu"))
        assert 4 * tokens * vocabulary_size <= cross_entropy.CHUNK_BYTES["cpu"]
        assert 4 * (tokens + 1) * vocabulary_size > cross_entropy.CHUNK_BYTES["cpu"]


def test_auto_keeps_small_logits_whole_and_what_liger_lacks_is_said() -> None:
    assert choose_cross_entropy("auto", 4 * 272, 1500) == "whole"
    assert choose_cross_entropy("auto", 8 * 2048, 33_000) == "chunked"
    with pytest.raises(InputError, match="liger-kernel"):
        choose_cross_entropy("liger", 1, 1)


def test_an_adapted_head_is_called_for_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "chunk_tokens", lambda *_: 7)
    batch, total = global_batch(1), torch.tensor(30.0)
    gradients = []
    for way in ("whole", "chunked"):
        model = StepLoss(add_lora(tiny_model(), LoraConfig(r=2, alpha=4, targets=("lm_head",)), 1), cross_entropy=way)
        loss, _ = model(batch, total)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(gradients[0]) == 3
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(*gradients, strict=True))


def _steps(zero_stage: int, way: str) -> list[tuple[float, float]]:
    from model.engine import run_step, start_engine

    cross_entropy.CHUNK_BYTES["cpu"] = 4 * 94 * 20  # chunks of 20 targets
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    train = train_config(zero_stage, cross_entropy=way, z_loss=1e-3)
    engine = start_engine(tiny_model(), train, "fp32")
    results = [
        run_step(engine, share(global_batch(step), rank, world_size), train, 5e-3, VOCABULARY.pad_id)
        for step in range(3)
    ]
    return [(result.loss, result.grad_norm) for result in results]


@pytest.mark.parametrize(
    "zero_stage", [3, pytest.param(0, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_chunks_train_alike_with_a_tied_head_on_two_workers(zero_stage: int) -> None:
    reference = torch.tensor(run_group(1, _steps, 0, "whole")[0])
    for results in run_group(2, _steps, zero_stage, "chunked"):
        assert torch.allclose(torch.tensor(results), reference, atol=1e-5, rtol=1e-5)
