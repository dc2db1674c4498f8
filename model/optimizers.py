"""Optimizers: AdamW, and Muon for the matrices of the layers.

State by parameter: `step`, `exp_avg`, `exp_avg_sq` under AdamW, `momentum_buffer` under Muon.
"""

from collections.abc import Iterable
from typing import Any

import torch

from model.train_config import TrainConfig

ADAM_EPS = 1e-8


def build_optimizer(module: torch.nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of `train` over the trainable weights of `module`; its learning rate is set at each step.

    Norms and biases do not decay, nor do weights of which only some rows train (model/freezing.py): decay would move
    the others. On GPUs, and where its state is offloaded, AdamW is PyTorch's fused one.
    """
    trainable = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
    matrices = [weight for name, weight in trainable if train.optimizer == "muon" and _is_layer_matrix(name, weight)]
    rest = [weight for name, weight in trainable if not _is_in(weight, matrices)]
    decays = [weight for weight in rest if weight.ndim > 1 and not getattr(weight, "trains_rows", False)]
    groups = [
        {"params": decays, "weight_decay": train.weight_decay},
        {"params": [weight for weight in rest if not _is_in(weight, decays)], "weight_decay": 0.0},
    ]
    adam_groups = [group for group in groups if group["params"]]
    if train.optimizer == "muon":
        return MuonWithAdamW(matrices, adam_groups, train)
    return _adamw(adam_groups, train)


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for `matrices`, AdamW for the other groups, as one optimizer.

    Muon steps along the momentum, orthogonalised by Newton-Schulz iterations, with torch.optim.Muon; its step is
    scaled to the root mean square of AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"), so that both
    share learning rate and weight decay. Needs whole matrices: not for partitioned weights.
    """

    def __init__(
        self, matrices: list[torch.nn.Parameter], adam_groups: list[dict[str, Any]], train: TrainConfig
    ) -> None:
        muon_groups = [{"params": matrices, "weight_decay": train.weight_decay}] if matrices else []
        super().__init__([*muon_groups, *adam_groups], {"lr": 0.0})
        self._inner: list[torch.optim.Optimizer] = []
        if matrices:
            self._inner.append(
                torch.optim.Muon(
                    matrices,
                    lr=0.0,
                    weight_decay=train.weight_decay,
                    momentum=train.muon_momentum,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if adam_groups:
            self._inner.append(_adamw(adam_groups, train))
        # One set of groups and states: what is set or restored here is what steps.
        self.param_groups = [group for optimizer in self._inner for group in optimizer.param_groups]
        for optimizer in self._inner:
            optimizer.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both. `closure` is not supported."""
        if closure is not None:
            raise ValueError("MuonWithAdamW takes no closure")
        for optimizer in self._inner:
            optimizer.step()


def _adamw(groups: list[dict[str, Any]], train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019). Fused it needs no compiler, as DeepSpeed's for CPUs would."""
    fused = train.offload_optimizer != "none" or any(weight.is_cuda for group in groups for weight in group["params"])
    return torch.optim.AdamW(
        groups, lr=0.0, betas=(train.beta1, train.beta2), eps=ADAM_EPS, fused=True if fused else None
    )


def _is_layer_matrix(name: str, weight: torch.nn.Parameter) -> bool:
    """Matrices of the numbered layers, by transformers' names ("model.layers.0.…"); embeddings and heads are not."""
    return weight.ndim == 2 and any(part.isdigit() for part in name.split("."))


def _is_in(weight: torch.nn.Parameter, weights: Iterable[torch.nn.Parameter]) -> bool:
    return any(weight is other for other in weights)
