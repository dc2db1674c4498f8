"""One training step as plain functions: a loss that does not depend on how many workers share the batch.

Shapes: B rows, T positions of a row, N target positions of a batch, H width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from model.attention import hidden_states, set_attention
from model.cross_entropy import TargetLoss, Targets, Way
from model.lm import plain_language_model
from model.loss_parts import LossParts, source_ids

IGNORED = -100
NO_PARTS = LossParts()


@dataclass(frozen=True)
class TensorBatch:
    """Packed rows as tensors. Labels are not shifted; `position_ids_BT` restart at every document.

    `weights_BT` is the loss weight of each target, 0 elsewhere. `sources_BT` is the index of each token's source.
    """

    ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    weights_BT: torch.Tensor
    sources_BT: torch.Tensor | None = None

    def rows(self, start: int, stop: int) -> "TensorBatch":
        """Rows start … stop - 1, as one micro-batch."""
        return TensorBatch(
            self.ids_BT[start:stop],
            self.labels_BT[start:stop],
            self.position_ids_BT[start:stop],
            self.weights_BT[start:stop],
            None if self.sources_BT is None else self.sources_BT[start:stop],
        )


def to_tensors(batch: Any, device: str | torch.device = "cpu", sources: Sequence[str] = ()) -> TensorBatch:
    """A batch of the token stream (numpy arrays of the same names) on `device`.

    `sources` are the names of all sources of the phase in the order of their indices; without, none are told apart.
    """
    arrays = [batch.ids_BT, batch.labels_BT, batch.position_ids_BT, batch.weights_BT]
    if sources:
        arrays.append(source_ids(batch.position_ids_BT, batch.sources, sources))
    return TensorBatch(*(torch.as_tensor(array).to(device) for array in arrays))


def target_weight(batch: TensorBatch) -> torch.Tensor:
    """Sum of the weights of the targets (float64 scalar): what is summed over the workers before the loss."""
    return batch.weights_BT[:, 1:][_is_target(batch)].double().sum()


def compute_loss(model: Any, batch: TensorBatch, total_weight: float | torch.Tensor) -> torch.Tensor:
    """The loss of `loss_and_parts` alone, from whole logits: for a model without an engine."""
    target_loss = TargetLoss(plain_language_model(model).get_output_embeddings(), "whole")
    return loss_and_parts(model, target_loss, batch, total_weight)[0]


def loss_and_parts(
    model: Any,
    target_loss: TargetLoss,
    batch: TensorBatch,
    total_weight: float | torch.Tensor,
    parts: LossParts = NO_PARTS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted cross entropy of the batch's targets, summed, over `total_weight` (float32 scalar); sums of its parts.

    `total_weight` counts the targets of the whole step over all workers and micro-batches, so that the shares of
    all add up to the step's loss. A document starts where its position is 0 and sees nothing before that; its
    first token is predicted from nothing, so it is no target. Only the hidden states of targets meet the
    vocabulary. A batch without a target gives a 0 that still reaches every weight: all workers must reduce the same
    gradients.

    Raises InputError for a model whose attention would not separate packed documents.
    """
    lm = plain_language_model(model)
    hidden_BTH = hidden_states(lm, batch.ids_BT, batch.position_ids_BT)
    chosen = _is_target(batch)
    hidden_NH, labels_N = hidden_BTH[:, :-1][chosen], batch.labels_BT[:, 1:][chosen]
    weights_N = batch.weights_BT[:, 1:][chosen]
    sources_N = None if batch.sources_BT is None else batch.sources_BT[:, 1:][chosen]
    if not len(hidden_NH):  # any token as a target without weight
        hidden_NH, labels_N, weights_N = hidden_BTH[0, :1], batch.ids_BT[0, :1], batch.weights_BT.new_zeros(1)
        sources_N = None if batch.sources_BT is None else batch.sources_BT[0, :1]
    loss, losses_N = target_loss(hidden_NH, Targets(labels_N, weights_N, total_weight))
    return loss, parts.sums(losses_N, weights_N, labels_N, sources_N)


def _is_target(batch: TensorBatch) -> torch.Tensor:
    """Bool (B, T-1): whether position t predicts a target at t + 1 of the same document."""
    return (batch.labels_BT[:, 1:] != IGNORED) & (batch.position_ids_BT[:, 1:] != 0)


class StepLoss(torch.nn.Module):
    """The module that a training engine wraps: micro-batch in, its share of the step's loss and of its parts out.

    `autocast` runs the forward pass in bfloat16 over float32 weights. `attention` is a name of model/attention.py,
    `cross_entropy` a way of model/cross_entropy.py.
    """

    def __init__(
        self,
        lm: Any,
        autocast: bool = False,
        attention: str = "packed",
        cross_entropy: Way = "whole",
        z_loss: float = 0.0,
        parts: LossParts = NO_PARTS,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        plain = plain_language_model(lm)
        set_attention(plain, attention, compiled)
        self.lm = lm
        self.target_loss = TargetLoss(plain.get_output_embeddings(), cross_entropy, z_loss)
        self.autocast, self.parts = autocast, parts

    def forward(self, batch: TensorBatch, total_weight: float | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `loss_and_parts`."""
        with torch.autocast(batch.ids_BT.device.type, torch.bfloat16, enabled=self.autocast):
            return loss_and_parts(self.lm, self.target_loss, batch, total_weight, self.parts)
