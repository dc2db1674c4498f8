"""A Llama run token by token: the same weights as Hugging Face's, without its overhead and wholly in one dtype.

Hugging Face's RMSNorm rounds to float32 even in a float64 model, which lets the last bits, and so in rare cases a
greedy token, depend on what else is in the batch. Here every operation is in the dtype asked for.

Shapes: B = sequences, P = columns of the padded prompts, C = columns of the cache so far, H = query heads,
G = key-value heads, D = width of a head, E = hidden size, F = width of the feed-forward, V = vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class StepModel(Protocol):
    """A language model with a key-value cache: one `prefill`, then `step` after `step`."""

    max_positions: int
    device: torch.device

    def prefill(self, ids_BP: Tensor, padding_B: Tensor, max_columns: int) -> Tensor:
        """Start a batch of left-padded prompts. Returns the logits_BV of what comes next."""

    def step(self, ids_B: Tensor) -> Tensor:
        """Append one token to every sequence. Returns the logits_BV of what comes next."""

    def keep(self, rows: Tensor) -> None:
        """Drop every sequence of the batch but these."""


@dataclass(frozen=True)
class _Layer:
    attention_norm_E: Tensor
    qkv_weight: Tensor
    output_weight: Tensor
    feed_forward_norm_E: Tensor
    gate_up_weight: Tensor
    down_weight: Tensor


class LlamaSteps:
    """StepModel over the weights of a LlamaForCausalLM without biases and with plain rotary positions."""

    @staticmethod
    def supports(lm: Any) -> bool:
        """Whether this class computes what `lm` computes."""
        config = lm.config
        rope = getattr(config, "rope_parameters", None) or {}
        return (
            config.model_type == "llama"
            and not config.attention_bias
            and not config.mlp_bias
            and config.hidden_act == "silu"
            and rope.get("rope_type", "default") in ("default", "linear", "llama3")
        )

    def __init__(self, lm: Any, dtype: torch.dtype) -> None:
        config = lm.config
        self.max_positions = int(config.max_position_embeddings)
        self.device = lm.device
        self._heads = config.num_attention_heads
        self._groups = config.num_key_value_heads
        self._width = getattr(config, "head_dim", None) or config.hidden_size // self._heads
        self._epsilon = config.rms_norm_eps
        self._embedding_VE = lm.model.embed_tokens.weight.detach().to(dtype)
        self._head_VE = lm.lm_head.weight.detach().to(dtype)
        self._norm_E = lm.model.norm.weight.detach().to(dtype)
        self._layers = [_layer_weights(layer, dtype) for layer in lm.model.layers]
        positions = torch.arange(self.max_positions, device=self.device)[None]
        cos, sin = lm.model.rotary_emb(torch.zeros(1, dtype=torch.float32, device=self.device), positions)
        self._cos_CD, self._sin_CD = cos[0].to(dtype), sin[0].to(dtype)

    def prefill(self, ids_BP: Tensor, padding_B: Tensor, max_columns: int) -> Tensor:
        """See StepModel."""
        batch, columns = ids_BP.shape
        shape = (len(self._layers), 2, batch, self._groups, max_columns, self._width)
        self._cache = torch.empty(shape, dtype=self._embedding_VE.dtype, device=self.device)
        self._columns, self._padding_B = 0, padding_B
        column_P = torch.arange(columns, device=self.device)
        real_BP = column_P >= padding_B[:, None]
        causal_PP = column_P[:, None] >= column_P[None, :]
        itself_PP = column_P[:, None] == column_P[None, :]  # a padding column must attend to something, or it is NaN
        mask_BPP = (causal_PP & real_BP[:, None, :]) | itself_PP
        positions_BP = (column_P - padding_B[:, None]).clamp(min=0)
        return self._run(ids_BP, positions_BP, mask_BPP)

    def step(self, ids_B: Tensor) -> Tensor:
        """See StepModel."""
        column_C = torch.arange(self._columns + 1, device=self.device)
        mask_B1C = (column_C >= self._padding_B[:, None])[:, None]
        return self._run(ids_B[:, None], (self._columns - self._padding_B)[:, None], mask_B1C)

    def keep(self, rows: Tensor) -> None:
        """See StepModel."""
        layers, two, _, groups, columns, width = self._cache.shape
        shape = (layers, two, len(rows), groups, columns, width)
        kept = torch.empty(shape, dtype=self._cache.dtype, device=self.device)
        kept[..., : self._columns, :] = self._cache[:, :, rows, :, : self._columns]
        self._cache, self._padding_B = kept, self._padding_B[rows]

    def _run(self, ids_BT: Tensor, positions_BT: Tensor, mask_BTC: Tensor) -> Tensor:
        """Logits after the last of the T new columns, which are appended to the cache."""
        x_BTE = self._embedding_VE[ids_BT]
        cos, sin = self._cos_CD[positions_BT][:, None], self._sin_CD[positions_BT][:, None]
        start, self._columns = self._columns, self._columns + ids_BT.shape[1]
        for index, layer in enumerate(self._layers):
            h_BTE = self._rms_norm(x_BTE, layer.attention_norm_E)
            attended = self._attend(index, F.linear(h_BTE, layer.qkv_weight), cos, sin, mask_BTC[:, None], start)
            x_BTE = x_BTE + F.linear(attended, layer.output_weight)
            gate, up = F.linear(self._rms_norm(x_BTE, layer.feed_forward_norm_E), layer.gate_up_weight).chunk(2, -1)
            x_BTE = x_BTE + F.linear(F.silu(gate) * up, layer.down_weight)
        return F.linear(self._rms_norm(x_BTE[:, -1], self._norm_E), self._head_VE)

    def _attend(self, index: int, qkv: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, start: int) -> Tensor:
        batch, length, _ = qkv.shape
        heads = qkv.view(batch, length, self._heads + 2 * self._groups, self._width).transpose(1, 2)
        query, key, value = heads.split([self._heads, self._groups, self._groups], dim=1)
        cache_k, cache_v = self._cache[index]
        cache_k[:, :, start : self._columns] = _rotate(key, cos, sin)
        cache_v[:, :, start : self._columns] = value
        attended = F.scaled_dot_product_attention(
            _rotate(query, cos, sin),
            cache_k[:, :, : self._columns],
            cache_v[:, :, : self._columns],
            attn_mask=mask,
            enable_gqa=self._groups != self._heads,
        )
        return attended.transpose(1, 2).reshape(batch, length, self._heads * self._width)

    def _rms_norm(self, x: Tensor, weight_E: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self._epsilon) * weight_E


class HuggingFaceSteps:
    """StepModel over any causal language model of Hugging Face: slower, and only as exact as its own code."""

    def __init__(self, lm: Any, dtype: torch.dtype) -> None:
        self._lm = lm.to(dtype).eval()
        self.max_positions = int(lm.config.max_position_embeddings)
        self.device = lm.device

    def prefill(self, ids_BP: Tensor, padding_B: Tensor, max_columns: int) -> Tensor:
        """See StepModel."""
        from transformers import DynamicCache

        columns = torch.arange(ids_BP.shape[1], device=self.device)
        self._mask_BC = (columns >= padding_B[:, None]).long()
        self._next_B = ids_BP.shape[1] - padding_B
        self._cache = DynamicCache(config=self._lm.config)
        return self._run(ids_BP, (columns - padding_B[:, None]).clamp(min=0))

    def step(self, ids_B: Tensor) -> Tensor:
        """See StepModel."""
        self._mask_BC = F.pad(self._mask_BC, (0, 1), value=1)
        logits_BV = self._run(ids_B[:, None], self._next_B[:, None])
        self._next_B = self._next_B + 1
        return logits_BV

    def keep(self, rows: Tensor) -> None:
        """See StepModel."""
        self._cache.batch_select_indices(rows)
        self._mask_BC, self._next_B = self._mask_BC[rows], self._next_B[rows]

    def _run(self, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        output = self._lm(
            input_ids=ids_BT,
            attention_mask=self._mask_BC,
            position_ids=positions_BT,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV


def _layer_weights(layer: Any, dtype: torch.dtype) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp

    def joined(*modules: Any) -> Tensor:
        return torch.cat([module.weight.detach() for module in modules]).to(dtype)

    return _Layer(
        attention_norm_E=joined(layer.input_layernorm),
        qkv_weight=joined(attention.q_proj, attention.k_proj, attention.v_proj),
        output_weight=joined(attention.o_proj),
        feed_forward_norm_E=joined(layer.post_attention_layernorm),
        gate_up_weight=joined(mlp.gate_proj, mlp.up_proj),
        down_weight=joined(mlp.down_proj),
    )


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), halves rotated as in GPT-NeoX and Llama."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
