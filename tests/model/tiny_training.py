"""A tiny model and packed random documents, for tests of training without a store."""

from typing import Any

import torch

from data.vocabulary import Block, Vocabulary
from model.config import LanguageModelConfig
from model.lm import add_lora, build_language_model
from model.train_config import LoraConfig, PhaseConfig, TrainConfig
from model.train_step import IGNORED, TensorBatch

VOCABULARY = Vocabulary(
    (Block("text", 0, 60), Block("marker", 60, 4), Block("unit.0", 64, 30)), ("[pad]", "[eos]", "[asr]", "[voice:a]")
)
LENGTH = 24
ROWS = 6


def tiny_model(seed: int = 1, lora: bool = False) -> Any:
    """A Llama of two layers; with `lora`, adapters that alone train."""
    config = LanguageModelConfig(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48, max_positions=LENGTH)
    model = build_language_model(config, VOCABULARY, seed)
    return add_lora(model, LoraConfig(r=2, alpha=4), seed) if lora else model


def train_config(zero_stage: int, **changes: Any) -> TrainConfig:
    """Six rows a step in micro-batches of one: 1, 2 and 3 workers can share them."""
    phase = PhaseConfig(name="only", steps_fraction=1.0, weights={"asr": 1.0}, lr=5e-3, warmup_steps=2)
    fields = {
        "phases": (phase,), "steps": 8, "sequence_length": LENGTH, "global_batch_rows": ROWS,
        "micro_batch_rows": 1, "zero_stage": zero_stage, "dtype": "fp32",
    }  # fmt: skip
    return TrainConfig(**{**fields, **changes})


def global_batch(step: int, rows: int = ROWS) -> TensorBatch:
    """Rows of documents of ragged lengths with ragged targets, and weights of 1 and 2."""
    generator = torch.Generator().manual_seed(step)
    ids_BT = torch.randint(0, VOCABULARY.size, (rows, LENGTH), generator=generator)
    position_ids_BT = torch.zeros_like(ids_BT)
    for row in range(rows):
        start = 0
        while start < LENGTH:
            stop = min(LENGTH, start + int(torch.randint(1, 12, (), generator=generator)))
            position_ids_BT[row, start:stop] = torch.arange(stop - start)
            start = stop
    target_BT = torch.rand(ids_BT.shape, generator=generator) < torch.rand(rows, 1, generator=generator)
    target_BT &= position_ids_BT > 0
    weights_BT = target_BT * torch.randint(1, 3, ids_BT.shape, generator=generator).float()
    return TensorBatch(ids_BT, torch.where(target_BT, ids_BT, IGNORED), position_ids_BT, weights_BT)


def share(batch: TensorBatch, rank: int, world_size: int) -> TensorBatch:
    """Rows r, r + W, … of a batch."""
    return TensorBatch(*(None if tensor is None else tensor[rank::world_size] for tensor in vars(batch).values()))
