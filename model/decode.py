"""Decoding: batches of prompts continued by a language model under the grammar's rules.

Tokens of a request never depend on its company: weights are float64 by default (a tie broken by rounding would need
logits equal to 15 digits), padding is masked out exactly, and a sampled request draws from a generator of its own.

Shapes: B = sequences, P = columns of the padded prompts, V = padded vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.errors import InputError
from data.grammar.continuation import Continuation
from model.llama_steps import HuggingFaceSteps, LlamaSteps, StepModel

# Rows of finished sequences are computed in vain until this share of the batch is finished: dropping copies the cache.
DROP_FRACTION = 0.25


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. `temperature` 0 is greedy; `top_p` keeps the likeliest ids up to that mass, `top_k` at
    most so many (0: all). Equal seeds draw equally, whatever else is decoded at the same time."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """What one sequence starts from, and what may follow. `ids` int32, at least one."""

    ids: np.ndarray
    continuation: Continuation
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Generated:
    """What followed a prompt: `ids` int32 with markers and [eos]; `finished` is False where the limit cut it short;
    `logprob` is the sum over tokens of their log probability among the legal ids."""

    ids: np.ndarray
    finished: bool
    logprob: float


def step_model(lm: Any, dtype: torch.dtype = torch.float64) -> StepModel:
    """A PreTrainedModel made ready for `generate`. Holds a copy of the weights in `dtype`."""
    return LlamaSteps(lm, dtype) if LlamaSteps.supports(lm) else HuggingFaceSteps(lm, dtype)


@torch.inference_mode()
def generate(model: StepModel, prompts: list[Prompt], alive: Callable[[], None] = lambda: None) -> list[Generated]:
    """Continue every prompt until its continuation ends or its limit is reached; `alive` is called after each token.

    Raises InputError for a prompt that fills the model's positions.
    """
    sequences = [_Sequence(prompt, model.max_positions) for prompt in prompts]
    live = [sequence for sequence in sequences if not sequence.done]
    if live:
        _decode(model, live, alive)
    return [sequence.result() for sequence in sequences]


def _decode(model: StepModel, live: list[_Sequence], alive: Callable[[], None]) -> None:
    ids_BP, padding_B = _left_pad([sequence.context for sequence in live])
    columns = ids_BP.shape[1] + max(sequence.room for sequence in live)
    logits_BV = model.prefill(ids_BP.to(model.device), padding_B.to(model.device), columns)
    rows = live
    while True:
        _choose(logits_BV, rows)
        alive()
        kept = [index for index, sequence in enumerate(rows) if not sequence.done]
        if not kept:
            return
        if len(kept) <= len(rows) * (1 - DROP_FRACTION):
            model.keep(torch.tensor(kept, device=model.device))
            rows = [rows[index] for index in kept]
        logits_BV = model.step(torch.tensor([sequence.last for sequence in rows], device=model.device))


def _choose(logits_BV: Tensor, rows: list[_Sequence]) -> None:
    """Give each unfinished sequence its next id: the best legal one, or a draw."""
    mask_BV = torch.from_numpy(np.stack([sequence.mask_V for sequence in rows])).to(logits_BV.device)
    logits_BV = logits_BV[:, : mask_BV.shape[1]].double().masked_fill(~mask_BV, -torch.inf)
    best_B = logits_BV.argmax(-1)
    logprob_BV = logits_BV.log_softmax(-1)
    best_logprob_B = logprob_BV.gather(1, best_B[:, None])[:, 0].tolist()
    for index, (sequence, token, logprob) in enumerate(zip(rows, best_B.tolist(), best_logprob_B, strict=True)):
        if sequence.done:
            continue
        if sequence.sampling.temperature > 0:
            token = sequence.draw(logprob_BV[index])
            logprob = float(logprob_BV[index, token])
        sequence.append(token, logprob)


class _Sequence:
    """One prompt under way: what was generated, and the state of its continuation."""

    def __init__(self, prompt: Prompt, max_positions: int) -> None:
        if len(prompt.ids) == 0:
            raise ValueError("a prompt holds no ids: the model needs one to continue")
        if len(prompt.ids) >= max_positions:
            raise InputError(
                f"the input is {len(prompt.ids)} tokens long and the model has {max_positions} positions: "
                "give shorter audio or text"
            )
        self.sampling = prompt.sampling
        self._continuation = prompt.continuation
        self._limit = min(prompt.max_new_tokens, max_positions - len(prompt.ids))
        self._state = 0
        self._ids: list[int] = []
        self._logprob = 0.0
        self._generator: np.random.Generator | None = None
        # Markers that must come first need no model: they join the prompt.
        while not self.done and (forced := self._continuation.only_choice(self._state)) is not None:
            self.append(forced, 0.0)
        self.context = [*prompt.ids.tolist(), *self._ids]

    @property
    def done(self) -> bool:
        return self._state == self._continuation.end or len(self._ids) >= self._limit

    @property
    def room(self) -> int:
        """How many tokens may still come."""
        return self._limit - len(self._ids)

    @property
    def last(self) -> int:
        return self._ids[-1]

    @property
    def mask_V(self) -> np.ndarray:
        mask_V: np.ndarray = self._continuation.masks_SV[self._state]
        return mask_V

    def append(self, token: int, logprob: float) -> None:
        self._ids.append(token)
        self._logprob += logprob
        self._state = int(self._continuation.advance(self._state, token))

    def draw(self, logprob_V: Tensor) -> int:
        """A legal id by temperature, top-k and nucleus sampling (Holtzman et al. 2020)."""
        if self._generator is None:
            self._generator = np.random.default_rng(self.sampling.seed)
        scaled_V = logprob_V.cpu().numpy() / self.sampling.temperature
        order = np.argsort(-scaled_V, kind="stable")
        order = order[: self.sampling.top_k or len(order)]
        weights = np.exp(scaled_V[order] - scaled_V[order[0]])
        mass_before = (np.cumsum(weights) - weights) / weights.sum()
        weights = np.where(mass_before < max(self.sampling.top_p, 1e-9), weights, 0.0)
        cumulative = np.cumsum(weights)
        return int(order[np.searchsorted(cumulative, self._generator.random() * cumulative[-1], side="right")])

    def result(self) -> Generated:
        finished = self._state == self._continuation.end
        return Generated(np.asarray(self._ids, dtype=np.int32), finished, self._logprob)


def _left_pad(contexts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """ids_BP int64 with zeros on the left, and how many of them each row has."""
    width = max(len(context) for context in contexts)
    padding = [width - len(context) for context in contexts]
    rows = [[0] * pad + context for pad, context in zip(padding, contexts, strict=True)]
    return torch.tensor(rows), torch.tensor(padding)
