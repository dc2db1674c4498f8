"""What a step is said to need, against counts by hand and by PyTorch."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model import flops
from model.config import LanguageModelConfig
from model.flops import FlopCount, document_sizes, peak_flops
from model.lm import add_lora, build_language_model
from model.train_config import LoraConfig
from model.train_step import IGNORED, TensorBatch
from tests.model.tiny_training import VOCABULARY

PAD = VOCABULARY.pad_id


def _batch(lengths: list[int], row: int) -> TensorBatch:
    """One row of documents, then padding; every token but the first of a document is a target."""
    ids = torch.full((1, row), PAD)
    positions = torch.zeros_like(ids)
    start = 0
    for length in lengths:
        ids[0, start : start + length] = 5
        positions[0, start : start + length] = torch.arange(length)
        start += length
    positions[0, start:] = torch.arange(row - start)
    target = (positions > 0) & (ids != PAD)
    return TensorBatch(ids, torch.where(target, ids, IGNORED), positions, target.float())


def _model() -> object:
    shape = LanguageModelConfig(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48, max_positions=64)
    return build_language_model(shape, VOCABULARY, 0)


def test_documents_are_counted_and_padding_is_not() -> None:
    assert document_sizes(_batch([3, 5], 12), PAD) == (8, 9 + 25)
    assert document_sizes(_batch([12], 12), PAD) == (12, 144)


def test_the_count_is_what_pytorch_counts_in_the_products() -> None:
    """One document fills the row: then PyTorch's own counter must see the same arithmetic."""
    lm = _model()
    batch = _batch([64], 64)
    lm.set_attn_implementation("eager")  # type: ignore[attr-defined]
    with FlopCounterMode(display=False) as counter:
        hidden = lm.get_decoder()(input_ids=batch.ids_BT, use_cache=False).last_hidden_state  # type: ignore[attr-defined]
        lm.get_output_embeddings()(hidden[:, :-1]).sum().backward()  # type: ignore[attr-defined]
    assert FlopCount.of(lm).of_batch(batch, PAD) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_frozen_weights_cost_two_thirds_and_packing_saves_attention() -> None:
    full, lora = FlopCount.of(_model()), FlopCount.of(add_lora(_model(), LoraConfig(r=2, alpha=4), 0))
    assert 2 / 3 < lora.per_token / full.per_token < 0.8
    assert lora.per_target == pytest.approx(full.per_target * 2 / 3)
    one, four = full.of_batch(_batch([64], 64), PAD), full.of_batch(_batch([16] * 4, 64), PAD)
    assert one - four == pytest.approx(full.per_squared_length * (64**2 - 4 * 16**2) + full.per_target * 3)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [("NVIDIA H200", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA L40S", 362),
     ("NVIDIA L40", None), ("NVIDIA RTX A1000", None), ("NVIDIA GeForce RTX 4090", None)],
)  # fmt: skip
def test_only_a_gpu_of_the_very_name_has_the_maker_s_peak(
    monkeypatch: pytest.MonkeyPatch, name: str, tflops: float | None
) -> None:
    """Any other is measured, by a product that is long beside the launch of its kernel."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(flops, "_measured_peak", lambda device, dtype, side: float(side))
    assert peak_flops("cuda", "bf16")[0] == (tflops * 1e12 if tflops else 4096)


def test_the_peak_of_a_cpu_is_measured_and_says_so() -> None:
    peak, source = peak_flops("cpu", "fp32")
    assert 1e8 < peak < 1e14
    assert "matrix product" in source
