"""Attention over packed documents by PyTorch's FlashAttention for sequences of different lengths. For GPUs.

All rows are one sequence whose documents start and end where cumulative lengths say. Registered with transformers under
the name `varlen_documents`.

Shapes: B rows, T positions, H heads, D width of a head.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from model.packed_attention import compute_dtype

NAME = "varlen_documents"
MAX_HEAD_WIDTH, HEAD_MULTIPLE = 256, 8  # the kernel's; scaled_dot_product_attention would pad other widths for it


@dataclass(frozen=True)
class DocumentBounds:
    """`starts` (documents + 1, int32) of all rows laid end to end, and the longest document's length."""

    starts: torch.Tensor
    longest: int


def document_bounds(position_ids_BT: torch.Tensor) -> DocumentBounds:
    """Bounds of rows whose documents start at position 0. A row starts a document whatever its position."""
    starts_BT = position_ids_BT == 0
    starts_BT[:, 0] = True
    starts = starts_BT.flatten().nonzero().flatten()
    starts = torch.cat([starts, starts.new_tensor([starts_BT.numel()])])
    return DocumentBounds(starts.int(), int(starts.diff().max()))


def missing(device: torch.device | str, dtype: str, head_width: int) -> str | None:
    """What keeps `varlen` from running, or None."""
    if torch.device(device).type != "cuda":
        return "a GPU"
    if dtype not in ("bf16", "fp16"):
        return "train.dtype bf16 or fp16"
    if torch.cuda.get_device_capability(device)[0] < 8:
        return "a GPU of compute capability 8.0 or more"
    if head_width > MAX_HEAD_WIDTH:
        return f"heads of at most {MAX_HEAD_WIDTH} (the model's have {head_width})"
    if head_width % HEAD_MULTIPLE:
        return f"heads of a multiple of {HEAD_MULTIPLE} (the model's have {head_width})"
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return "torch.nn.attention.varlen"
    if not {"window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters):
        return "a newer PyTorch (varlen_attn with window_size and enable_gqa)"
    return None


def varlen_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    documents: DocumentBounds | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: output (B, T, H, D). Raises ValueError without bounds, or with a mask."""
    from torch.nn.attention.varlen import varlen_attn

    if documents is None or attention_mask is not None or dropout:
        raise ValueError("varlen_documents needs documents=document_bounds(position_ids), no mask and no dropout")
    batch, heads, length, _ = query_BHTD.shape
    dtype = compute_dtype(query_BHTD)
    query, key, value = (
        part.to(dtype).transpose(1, 2).flatten(0, 1).contiguous() for part in (query_BHTD, key_BHTD, value_BHTD)
    )
    output: Any = varlen_attn(
        query,
        key,
        value,
        documents.starts,
        documents.starts,
        documents.longest,
        documents.longest,
        scale=scaling,
        window_size=(-1, 0),  # nothing after the query: causal
        enable_gqa=key.shape[1] != heads,
    )
    return output.view(batch, length, heads, -1), None
