"""One training step as plain functions: a loss that does not depend on how many workers share the batch.

Shapes: B rows, T positions of a row, N target positions of a batch, H width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from data.errors import InputError
from model import packed_attention
from model.lm import plain_language_model

IGNORED = -100


@dataclass(frozen=True)
class TensorBatch:
    """Packed rows as tensors. Labels are not shifted; `position_ids_BT` restart at every document.

    `weights_BT` is the loss weight of each target, 0 elsewhere.
    """

    ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    weights_BT: torch.Tensor

    def rows(self, start: int, stop: int) -> "TensorBatch":
        """Rows start … stop - 1, as one micro-batch."""
        return TensorBatch(
            self.ids_BT[start:stop],
            self.labels_BT[start:stop],
            self.position_ids_BT[start:stop],
            self.weights_BT[start:stop],
        )


def to_tensors(batch: Any, device: str | torch.device = "cpu") -> TensorBatch:
    """A batch of the token stream (numpy arrays of the same names) on `device`."""
    arrays = (batch.ids_BT, batch.labels_BT, batch.position_ids_BT, batch.weights_BT)
    return TensorBatch(*(torch.as_tensor(array).to(device) for array in arrays))


def target_weight(batch: TensorBatch) -> torch.Tensor:
    """Sum of the weights of the targets (float64 scalar): what is summed over the workers before the loss."""
    return batch.weights_BT[:, 1:][_is_target(batch)].double().sum()


def compute_loss(model: Any, batch: TensorBatch, total_weight: float | torch.Tensor) -> torch.Tensor:
    """Weighted cross entropy of the batch's targets, summed, over `total_weight` (float32 scalar).

    `total_weight` counts the targets of the whole step over all workers and micro-batches, so that the shares of
    all add up to the step's loss. A document starts where its position is 0 and sees nothing before that; its
    first token is predicted from nothing, so it is no target. Only the hidden states of targets meet the
    vocabulary. A batch without a target gives a 0 that still reaches every weight.

    Raises InputError for a model whose attention would not separate packed documents.
    """
    lm = plain_language_model(model)
    _check_attention(lm)
    # No attention mask and no cache: only so does transformers separate documents by their restarting positions.
    packed = lm.config._attn_implementation == packed_attention.NAME
    layout = {"documents": packed_attention.layout_documents(batch.position_ids_BT)} if packed else {}
    hidden_BTH = lm.get_decoder()(
        input_ids=batch.ids_BT, position_ids=batch.position_ids_BT, attention_mask=None, use_cache=False, **layout
    ).last_hidden_state
    chosen = _is_target(batch)
    hidden_NH = hidden_BTH[:, :-1][chosen]
    if not len(hidden_NH):
        return _zero_through(lm, hidden_BTH)
    logits_NV = lm.get_output_embeddings()(hidden_NH).float()
    loss_N = F.cross_entropy(logits_NV, batch.labels_BT[:, 1:][chosen], reduction="none")
    return (loss_N * batch.weights_BT[:, 1:][chosen]).sum() / total_weight


def _is_target(batch: TensorBatch) -> torch.Tensor:
    """Bool (B, T-1): whether position t predicts a target at t + 1 of the same document."""
    return (batch.labels_BT[:, 1:] != IGNORED) & (batch.position_ids_BT[:, 1:] != 0)


def _zero_through(lm: Any, hidden_BTH: torch.Tensor) -> torch.Tensor:
    """0 with a gradient path to every weight: all workers must reduce the same gradients."""
    logits_V = lm.get_output_embeddings()(hidden_BTH[:1, :1].reshape(1, -1))
    return (hidden_BTH.float().sum() + logits_V.float().sum()) * 0.0


def _check_attention(lm: Any) -> None:
    kind = lm.config._attn_implementation
    if kind not in (packed_attention.NAME, "sdpa", "eager"):
        raise InputError(
            f"attention {kind!r} does not separate packed documents by position ids: use sdpa, eager or "
            f"{packed_attention.NAME}"
        )


class StepLoss(torch.nn.Module):
    """The module that a training engine wraps: micro-batch in, its share of the step's loss out.

    Attention is set to `packed_documents`. `autocast` runs the forward pass in bfloat16 over float32 weights.
    """

    def __init__(self, lm: Any, autocast: bool = False) -> None:
        super().__init__()
        packed_attention.register()
        plain_language_model(lm).set_attn_implementation(packed_attention.NAME)
        self.lm = lm
        self.autocast = autocast

    def forward(self, batch: TensorBatch, total_weight: float | torch.Tensor) -> torch.Tensor:
        """See `compute_loss`."""
        with torch.autocast(batch.ids_BT.device.type, torch.bfloat16, enabled=self.autocast):
            return compute_loss(self.lm, batch, total_weight)
