"""What one trial of the mixture search computes."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from model.proxy import held_out_losses, proxy_curve, relative_loss
from model.train_step import TensorBatch


def batch(pattern: list[int], rows: int = 2, length: int = 24) -> TensorBatch:
    """Rows that repeat a pattern: every token but the first of a row is a target."""
    ids_BT = torch.tensor(np.resize(pattern, (rows, length)))
    labels_BT = ids_BT.clone()
    labels_BT[:, 0] = -100
    weights_BT = (labels_BT != -100).float()
    return TensorBatch(ids_BT, labels_BT, torch.arange(length).expand(rows, -1), weights_BT)


@pytest.fixture
def lm():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    return LlamaForCausalLM(config)


def test_training_lowers_the_held_out_loss_of_what_it_sees(lm):
    held_out = {"seen": batch([1, 2, 3]), "unseen": batch([9, 4, 11, 7])}
    before = held_out_losses(lm, held_out)
    curve = list(proxy_curve(lm, lambda step: batch([1, 2, 3]), held_out, steps=30, report_every=10, lr=1e-2))
    assert [step for step, _ in curve] == [10, 20, 30]
    assert curve[-1][1]["seen"] < 0.5 * before["seen"]
    assert curve[-1][1]["seen"] < curve[-1][1]["unseen"]


def test_the_last_step_is_reported_even_between_intervals(lm):
    curve = proxy_curve(lm, lambda step: batch([1, 2]), {"a": batch([1, 2])}, steps=5, report_every=3, lr=1e-3)
    assert [step for step, _ in curve] == [3, 5]


def test_the_objective_is_one_for_uniform_and_the_mean_ratio_otherwise():
    uniform = {"asr": 2.0, "tts": 4.0}
    assert relative_loss(uniform, uniform) == 1.0
    assert relative_loss({"asr": 1.0, "tts": 4.0}, uniform) == 0.75
