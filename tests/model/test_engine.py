"""One optimizer step on 1, 2 and 3 workers."""

import pytest
import torch

from data.errors import InputError
from model.engine import resolve_dtype, run_step, start_engine
from tests.model.process_group import run_group
from tests.model.tiny_training import VOCABULARY, global_batch, share, tiny_model, train_config


def _steps(zero_stage: int, count: int) -> list[tuple[float, float, int]]:
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    train = train_config(zero_stage)
    engine = start_engine(tiny_model(), train, "fp32")
    results = []
    for step in range(count):
        result = run_step(engine, share(global_batch(step), rank, world_size), train, 5e-3, VOCABULARY.pad_id)
        results.append((result.loss, result.grad_norm, result.tokens))
    return results


def _refused_step() -> str:
    train = train_config(0)
    engine = start_engine(tiny_model(), train, "fp32")
    batch = global_batch(0)
    batch.weights_BT.zero_()
    with pytest.raises(InputError, match="without any target") as caught:
        run_step(engine, batch, train, 1e-3, VOCABULARY.pad_id)
    return str(caught.value)


def test_one_two_and_three_workers_compute_the_same_steps() -> None:
    reference = torch.tensor(run_group(1, _steps, 0, 4)[0])
    for world_size, zero_stage in ((2, 0), (2, 2), (3, 2)):
        for results in run_group(world_size, _steps, zero_stage, 4):
            assert torch.allclose(torch.tensor(results), reference, atol=1e-5, rtol=1e-5), (world_size, zero_stage)


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_zero_stage_computes_the_same_steps(zero_stage: int, world_size: int) -> None:
    reference = torch.tensor(run_group(1, _steps, 0, 6)[0])
    results = torch.tensor(run_group(world_size, _steps, zero_stage, 6)[0])
    assert torch.allclose(results, reference, atol=1e-5, rtol=1e-5)


def test_a_step_without_targets_is_refused() -> None:
    run_group(1, _refused_step)


def test_dtype_auto_names_a_real_dtype_and_a_given_one_is_kept() -> None:
    assert resolve_dtype("fp32") == "fp32"
    assert resolve_dtype("auto") in ("bf16", "fp32")
