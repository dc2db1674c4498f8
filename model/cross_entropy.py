"""Weighted cross entropy of hidden states against a large vocabulary, never with all logits in float32 at once.

Three ways to the same numbers: `whole` (PyTorch's own, logits of all targets), `chunked` (ours), `liger` (the fused
kernel of Hsu et al. 2024, on GPUs that have it). Beside the cross entropy an optional z-loss, the squared log partition
function (Chowdhery et al. 2022), which keeps the logits from drifting.

Shapes: N targets, C targets of a chunk, H width, V vocabulary.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from data.errors import InputError

Way = Literal["whole", "chunked", "liger"]
WHOLE_BYTES = 2**28  # of float32 logits of a micro-batch, up to which `auto` keeps them whole
CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**29}  # of float32 logits of a chunk


def choose_cross_entropy(asked: str, micro_tokens: int, vocabulary_size: int, plain_loss: bool = True) -> Way:
    """The way for micro-batches of `micro_tokens` tokens; the same for all steps, whatever their targets.

    Liger is taken only when asked for: most of its releases know one weight for all targets, and nobody has measured
    it against `chunked` here. Raises InputError when Liger is asked for and absent, without a GPU, or without
    `plain_loss`: one weight for all targets, no z-loss.
    """
    if asked == "liger":
        if importlib.util.find_spec("liger_kernel") is None or not torch.cuda.is_available():
            raise InputError("train.cross_entropy=liger needs a GPU and the package liger-kernel: use chunked")
        if not plain_loss:
            raise InputError("train.cross_entropy=liger knows neither loss_weights nor z_loss: use chunked")
        return "liger"
    if asked == "auto":
        return "whole" if 4 * micro_tokens * vocabulary_size <= WHOLE_BYTES else "chunked"
    return "whole" if asked == "whole" else "chunked"


def check_logits(config: Any) -> None:
    """Raises InputError for models that do more to their logits than the output layer (Gemma 2, Cohere, Granite):
    the loss is taken from that layer's, and would be another model's."""
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"):
        value = getattr(config, name, None)
        if value is not None and value != 1:
            raise InputError(
                f"the model changes its logits after the output layer ({name}={value:g}), which training does not "
                "know: start from a model that does not"
            )


def chunk_tokens(vocabulary_size: int, device: torch.device) -> int:
    """Targets of one chunk."""
    return max(16, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cpu"]) // (4 * vocabulary_size))


@dataclass(frozen=True)
class Targets:
    """What the hidden states are to predict, with the weight of each, relative to `total`."""

    labels_N: torch.Tensor
    weights_N: torch.Tensor
    total: float | torch.Tensor


class TargetLoss(torch.nn.Module):
    """Hidden states (N, H) and targets to (share of the step's loss, cross entropy of each target (N)).

    The loss has the z-loss in it while the module is in training mode.

    The chunked and fused ways read the head's weight outside the head. So it is a parameter of this module too, tied:
    ZeRO-3 then gathers it for this module as for any other. A head that is more than a matrix (adapters, bias) is
    called for each chunk instead, and again in the backward pass.
    """

    def __init__(self, head: torch.nn.Module, way: Way, z_loss: float = 0.0) -> None:
        super().__init__()
        self._head = (head,)  # in a tuple: registered here as well, ZeRO-3 would hook it twice
        self.way, self.z_loss = way, z_loss
        self.plain = type(head) is torch.nn.Linear and head.bias is None
        if way == "liger" and not self.plain:
            raise InputError("train.cross_entropy=liger needs a plain output matrix (no adapter, no bias): use chunked")
        if way != "whole" and self.plain:
            self.weight: Any = head.weight

    @property
    def head(self) -> torch.nn.Module:
        """The model's output layer."""
        return self._head[0]

    def forward(self, hidden_NH: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        z_loss = self.z_loss if self.training else 0.0
        if self.way == "liger":
            return _liger(hidden_NH, self.weight, targets)
        if self.way == "chunked" and self.plain:
            size = chunk_tokens(self.weight.shape[0], hidden_NH.device)
            # Without gradients (validation) none is summed up: the function is asked by what it is given.
            weight_VH = self.weight if torch.is_grad_enabled() else self.weight.detach()
            return _Chunked.apply(hidden_NH, weight_VH, targets, z_loss, size, _compute_dtype(hidden_NH))
        if self.way == "chunked":
            losses_N, log_z_N = self._by_calling(hidden_NH, targets.labels_N, bool(z_loss))
        else:
            losses_N, log_z_N = _losses(self.head(hidden_NH).float(), targets.labels_N, bool(z_loss))
        loss = (losses_N * targets.weights_N).sum() / targets.total
        if z_loss:
            loss = loss + z_loss * (log_z_N.square() * targets.weights_N).sum() / targets.total
        return loss, losses_N.detach()

    def _by_calling(
        self, hidden_NH: torch.Tensor, labels_N: torch.Tensor, with_z: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = chunk_tokens(self.head.out_features, hidden_NH.device)  # type: ignore[arg-type]

        def one(hidden_CH: torch.Tensor, labels_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return _losses(self.head(hidden_CH).float(), labels_C, with_z)

        parts = [
            checkpoint(one, hidden_CH, labels_C, use_reentrant=False)
            for hidden_CH, labels_C in zip(hidden_NH.split(size), labels_N.split(size), strict=True)
        ]
        losses, log_zs = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(log_zs)


def _losses(logits_NV: torch.Tensor, labels_N: torch.Tensor, with_z: bool) -> tuple[torch.Tensor, torch.Tensor]:
    losses_N = F.cross_entropy(logits_NV, labels_N, reduction="none")
    return losses_N, logits_NV.logsumexp(-1) if with_z else losses_N.detach()


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


class _Chunked(torch.autograd.Function):
    """Chunk after chunk: logits, losses, and at once the gradients of hidden states and weight.

    So no logits outlive their chunk, and nothing is computed twice. Matrix products in `dtype`, everything else and
    the sum over chunks in float32 (float64 for float64 inputs). The gradients are scaled in the backward pass only:
    divided by the step's targets they would underflow in half precision.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        targets: Targets,
        z_loss: float,
        size: int,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        exact = torch.promote_types(dtype, torch.float32)
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        low_VH = weight_VH.detach().to(dtype)
        losses_N = torch.empty(len(hidden_NH), dtype=exact, device=hidden_NH.device)
        loss = torch.zeros((), dtype=exact, device=hidden_NH.device)
        grad_hidden_NH = torch.empty_like(hidden_NH, dtype=dtype) if need_hidden else None
        grad_weight_VH = torch.zeros_like(low_VH, dtype=exact) if need_weight else None
        with torch.autocast(hidden_NH.device.type, enabled=False):
            for start in range(0, len(hidden_NH), size):
                chunk = slice(start, min(start + size, len(hidden_NH)))
                hidden_CH, weights_C = hidden_NH[chunk].detach().to(dtype), targets.weights_N[chunk].to(exact)
                logits_CV = (hidden_CH @ low_VH.T).to(exact)
                log_z_C = logits_CV.logsumexp(-1)
                labels_C1 = targets.labels_N[chunk, None]
                losses_N[chunk] = log_z_C - logits_CV.gather(1, labels_C1).squeeze(1)
                loss += ((losses_N[chunk] + z_loss * log_z_C.square()) * weights_C).sum()
                # d loss / d logits = weight * (softmax * (1 + 2 z log Z) - one at the label), in the logits' place
                scales_C = weights_C * (1 + 2 * z_loss * log_z_C)
                gradient_CV = logits_CV.sub_(log_z_C[:, None]).exp_().mul_(scales_C[:, None])
                gradient_CV.scatter_add_(1, labels_C1, -weights_C[:, None])
                low_CV = gradient_CV.to(dtype)
                if grad_hidden_NH is not None:
                    grad_hidden_NH[chunk] = low_CV @ low_VH
                if grad_weight_VH is not None:
                    grad_weight_VH += low_CV.T @ hidden_CH
        ctx.gradients, ctx.total = (grad_hidden_NH, grad_weight_VH), targets.total
        ctx.mark_non_differentiable(losses_N)
        return loss / targets.total, losses_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *output_gradients: torch.Tensor) -> tuple[Any, ...]:
        scale = output_gradients[0] / ctx.total
        grad_hidden, grad_weight = (
            None if gradient is None else gradient.to(torch.promote_types(gradient.dtype, torch.float32)).mul_(scale)
            for gradient in ctx.gradients
        )
        ctx.gradients = None
        return grad_hidden, grad_weight, None, None, None, None


def _liger(hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    """All targets have one weight (`choose_cross_entropy` sees to it). Not run without a GPU, so untested in CI."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    dtype = _compute_dtype(hidden_NH)
    losses_N = liger_fused_linear_cross_entropy(
        hidden_NH.to(dtype), weight_VH.to(dtype), targets.labels_N, reduction="none"
    )
    return (losses_N * targets.weights_N[0]).sum() / targets.total, losses_N.detach()
