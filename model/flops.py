"""How much arithmetic a step needs, and how much a device can do: the two sides of model FLOPs utilisation (MFU).

The count follows appendix B of PaLM (Chowdhery et al. 2022), 6 N per token and 12 L H Q T for attention, with what
packing leaves out left out: documents do not attend to each other, only targets meet the vocabulary, padding counts
nothing. Recomputed activations do not count; causal attention counts in full, as there.

Shapes: B rows, T positions.
"""

import re
import time
from dataclasses import dataclass
from typing import Any

import torch

from model.lm import plain_language_model
from model.train_step import IGNORED, TensorBatch

FORMULA = "(6 N tokens + 6 E targets + 12 L D sum(n^2)) / (s x peak); frozen weights 4 for 6"
PEAK_SIDE = {"cpu": 1024, "cuda": 4096}  # on a GPU a small product would measure the launch of its kernel
PEAK_TRIES = 5
# Dense bf16 FLOP/s that makers state, by words of the device's name; longer names first.
DENSE_BF16 = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of forward and backward passes of one model, by what they grow with."""

    per_token: float
    per_target: float
    per_squared_length: float

    @classmethod
    def of(cls, model: Any) -> "FlopCount":
        """Counted from the weights of a causal LM, adapters included. Call it before ZeRO-3 parts them."""
        lm = plain_language_model(model)
        head = lm.get_output_embeddings().weight
        table = lm.get_input_embeddings().weight
        body = [p for p in model.parameters() if p is not head and p is not table]
        config = lm.config
        width = (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads) * (
            config.num_attention_heads
        )
        return cls(
            per_token=float(sum(_per_use(p) for p in body)),
            per_target=float(_per_use(head)),
            per_squared_length=12.0 * config.num_hidden_layers * width,
        )

    def of_batch(self, batch: TensorBatch, pad_id: int) -> float:
        """FLOPs that these rows need."""
        tokens, squares = document_sizes(batch, pad_id)
        targets = int(((batch.labels_BT[:, 1:] != IGNORED) & (batch.position_ids_BT[:, 1:] != 0)).sum())
        return self.per_token * tokens + self.per_target * targets + self.per_squared_length * squares


def document_sizes(batch: TensorBatch, pad_id: int) -> tuple[int, int]:
    """Tokens of the rows' documents, and the sum of their squared lengths; padding is none."""
    starts_BT = batch.position_ids_BT == 0
    starts_BT[:, 0] = True
    flat_ids = batch.ids_BT.flatten()
    starts = starts_BT.flatten().nonzero().flatten()
    lengths = torch.diff(starts, append=starts.new_tensor([flat_ids.numel()]))
    lengths = lengths[flat_ids[starts] != pad_id]
    return int(lengths.sum()), int((lengths**2).sum())


def _per_use(parameter: torch.nn.Parameter) -> int:
    """A multiply-add forwards, one for the input's gradient, one for the weight's where it trains."""
    return parameter.numel() * (6 if parameter.requires_grad else 4)


def peak_flops(device: str | torch.device, dtype: str) -> tuple[float, str]:
    """(FLOP/s, where the number is from) of the device that one worker has.

    The maker's figure for a known GPU in bf16 or fp16; else what a square matrix product reaches here, now.
    """
    device = torch.device(device)
    if device.type == "cuda" and dtype != "fp32":
        name = torch.cuda.get_device_name(device)
        for part, flops in DENSE_BF16.items():
            if re.search(rf"\b{part}\b", name):  # an L40 is no L4
                return flops, f"{name}, dense bf16 as its maker states"
    side = PEAK_SIDE[device.type]
    return _measured_peak(device, dtype, side), f"a {side} x {side} matrix product in {dtype} on this {device.type}"


def _measured_peak(device: torch.device, dtype: str, side: int) -> float:
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    square = torch.ones(side, side, device=device, dtype=kind)
    fastest_s = float("inf")
    for _ in range(PEAK_TRIES):
        started = time.perf_counter()
        square @ square
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest_s = min(fastest_s, time.perf_counter() - started)
    return 2.0 * side**3 / fastest_s
