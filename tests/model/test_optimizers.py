"""AdamW's groups, and Muon beside it."""

import pytest
import torch

from model.optimizers import MuonWithAdamW, build_optimizer
from model.train_step import StepLoss, target_weight
from tests.model.process_group import run_group
from tests.model.tiny_training import VOCABULARY, global_batch, share, tiny_model, train_config


def test_norms_do_not_decay_and_every_weight_has_one_group() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, train_config(0))
    decays, rest = optimizer.param_groups
    assert (decays["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)
    assert all(parameter.ndim > 1 for parameter in decays["params"])
    assert len(decays["params"]) + len(rest["params"]) == len(list(model.parameters()))


def test_muon_takes_the_matrices_of_the_layers_alone() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, train_config(0, optimizer="muon"))
    muon = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in muon}
    assert len(names) == 2 * 7
    assert all(name.endswith("_proj.weight") for name in names)


def test_a_muon_step_moves_every_direction_alike() -> None:
    model, batch = StepLoss(tiny_model()), global_batch(0)
    optimizer = build_optimizer(model, train_config(0, optimizer="muon", weight_decay=0.0))
    assert isinstance(optimizer, MuonWithAdamW)
    weight = model.lm.model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    model(batch, target_weight(batch).float())[0].backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    optimizer.step()
    strengths = torch.linalg.svdvals(weight.detach() - before)
    # Newton-Schulz leaves singular values between about 0.5 and 1.5; the step is 0.2 sqrt(48) of that (Liu et al.).
    assert float(strengths.min() / (0.01 * 0.2 * 48**0.5)) > 0.5
    assert float(strengths.max() / (0.01 * 0.2 * 48**0.5)) < 1.5
    assert set(optimizer.state[weight]) == {"momentum_buffer"}
    assert {"step", "exp_avg", "exp_avg_sq"} == set(optimizer.state[model.lm.model.norm.weight])


def _losses(optimizer: str) -> list[float]:
    from model.engine import run_step, start_engine

    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    train = train_config(0, optimizer=optimizer)
    engine = start_engine(tiny_model(), train, "fp32")
    batch = share(global_batch(0), rank, world_size)
    return [run_step(engine, batch, train, 5e-3, VOCABULARY.pad_id).loss for _ in range(6)]


def test_muon_learns_and_two_workers_agree_with_one() -> None:
    one = run_group(1, _losses, "muon")[0]
    assert one[-1] < one[0] - 0.1
    for losses in run_group(2, _losses, "muon"):
        assert losses == pytest.approx(one, abs=2e-3)  # Newton-Schulz runs in bfloat16
