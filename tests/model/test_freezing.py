"""What a phase trains, and what stays as it is to the bit."""

from typing import Any

import pytest
import torch

from data.errors import InputError
from model.freezing import freeze
from model.train_step import TensorBatch
from tests.model.process_group import run_group
from tests.model.tiny_training import VOCABULARY, global_batch, share, tiny_model, train_config

FIRST_NEW = 60
TABLE = "model.embed_tokens.weight"


def _trainable(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_embeddings_only_and_patterns_leave_the_rest_frozen() -> None:
    model = tiny_model()
    freeze(model, "embeddings", FIRST_NEW)
    assert _trainable(model) == {TABLE}
    freeze(model, (r"layers\.1\..*_proj", "norm"), FIRST_NEW)
    names = _trainable(model)
    assert "model.layers.1.mlp.up_proj.weight" in names
    assert "model.norm.weight" in names
    assert TABLE not in names
    assert not any("layers.0" in name and "_proj" in name for name in names)


def test_adapters_train_beside_what_is_named() -> None:
    model = tiny_model(lora=True)
    freeze(model, "lora", FIRST_NEW)
    assert all("lora_" in name for name in _trainable(model))
    freeze(model, "embeddings", FIRST_NEW)
    assert {name for name in _trainable(model) if "lora_" not in name} == {f"base_model.model.{TABLE}"}


@pytest.mark.parametrize(
    ("trainable", "first", "message"),
    [(("nowhere",), 0, "no weight's name"), (("(",), 0, "no regular"), ("new_rows", 10_000, "all are known")],
)
def test_what_trains_nothing_is_refused(trainable: Any, first: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        freeze(tiny_model(), trainable, first)


def _train_new_rows(zero_stage: int) -> tuple[float, bool, bool]:
    """(largest change of an old row, whether the other weights kept their bits, whether new rows moved)."""
    from model.engine import run_step, start_engine

    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = tiny_model()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    freeze(model, "new_rows", FIRST_NEW)
    train = train_config(zero_stage, weight_decay=0.1)
    engine = start_engine(model, train, "fp32")
    for step in range(3):
        run_step(engine, share(global_batch(step), rank, world_size), train, 5e-3, VOCABULARY.pad_id)
    after = _whole_weights(engine)
    table, old = after.pop(TABLE), before.pop(TABLE)
    same = all(torch.equal(after[name], weight) for name, weight in before.items())
    return (
        float((table[:FIRST_NEW] - old[:FIRST_NEW]).abs().max()),
        same,
        not torch.equal(table[FIRST_NEW:], old[FIRST_NEW:]),
    )


def _whole_weights(engine: Any) -> dict[str, torch.Tensor]:
    import deepspeed

    found = {}
    for name, parameter in engine.module.lm.named_parameters():
        with deepspeed.zero.GatheredParameters(parameter, enabled=hasattr(parameter, "ds_id")):
            found[name] = parameter.detach().clone()
    return found


@pytest.mark.parametrize("zero_stage", [pytest.param(0, marks=pytest.mark.slow), 2, 3])
def test_old_rows_keep_their_bits_while_new_rows_train(zero_stage: int) -> None:
    for changed, others_same, moved in run_group(2, _train_new_rows, zero_stage):
        assert changed == 0.0
        assert others_same
        assert moved


def test_a_batch_without_new_rows_moves_nothing() -> None:
    model = tiny_model()
    freeze(model, "new_rows", FIRST_NEW)
    batch: TensorBatch = global_batch(0)
    hidden = model.get_input_embeddings()(batch.ids_BT.clamp(max=FIRST_NEW - 1))
    hidden.sum().backward()
    assert not model.get_input_embeddings().weight.grad.any()
