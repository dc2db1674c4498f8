"""Attention over packed documents that computes nothing between them.

A masked attention over a row of T tokens costs T² whatever the documents' lengths. Here the documents of all rows are
laid out anew, those of like length together, and each group is one causal attention without a mask: the cost is the
sum of the squared lengths. Registered with transformers under the name `packed_documents`.

Shapes: B rows, T positions, H heads, D width of a head, N places of all groups (padding included), G documents of a
group, L places of each.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

NAME = "packed_documents"
LONGEST_SCORES = 1024  # places; documents up to here may keep their scores in memory
SHORTEST_SHARE = 0.75  # documents shorter than this share of a group's longest form the next group


@dataclass(frozen=True)
class DocumentLayout:
    """Where tokens go: `source_N` is the flat position of the token at each place (padding repeats the document's
    last token); `place_BT` (flat) the place of each token; `groups` (documents, places of each), in order."""

    source_N: torch.Tensor
    place_BT: torch.Tensor
    groups: tuple[tuple[int, int], ...]


def layout_documents(position_ids_BT: torch.Tensor) -> DocumentLayout:
    """The layout of rows whose documents start at position 0. A row starts a document whatever its position."""
    starts_BT = position_ids_BT == 0
    starts_BT[:, 0] = True
    starts = starts_BT.flatten().nonzero().flatten()
    ends = torch.cat([starts[1:], torch.tensor([starts_BT.numel()], device=starts.device)])
    lengths, order = torch.sort(ends - starts, descending=True, stable=True)
    starts = starts[order]
    sources, owned, groups = [], [], []
    for first, last in _split(lengths.tolist()):
        longest = int(lengths[first])
        offsets_L = torch.arange(longest, device=starts.device)
        within_GL = torch.minimum(offsets_L[None], lengths[first:last, None] - 1)
        sources.append((starts[first:last, None] + within_GL).flatten())
        owned.append((offsets_L[None] == within_GL).flatten())
        groups.append((last - first, longest))
    source_N = torch.cat(sources)
    place_BT = torch.empty(starts_BT.numel(), dtype=torch.long, device=starts.device)
    # Each token's own place, not those that repeat it: what is written last of several is left open on GPUs.
    own = torch.cat(owned).nonzero().flatten()
    place_BT[source_N[own]] = own
    return DocumentLayout(source_N, place_BT, tuple(groups))


def _split(lengths: list[int]) -> list[tuple[int, int]]:
    """Bounds of runs of like lengths; `lengths` descend."""
    bounds, first = [], 0
    for index, length in enumerate(lengths):
        if length < SHORTEST_SHARE * lengths[first]:
            bounds.append((first, index))
            first = index
    return [*bounds, (first, len(lengths))]


def packed_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    documents: DocumentLayout | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: output (B, T, H, D). Raises ValueError without a layout, or with a mask."""
    if documents is None or attention_mask is not None:
        raise ValueError("packed_documents attention needs documents=layout_documents(position_ids) and no mask")
    batch, heads, length, width = query_BHTD.shape
    num_query, num_key = heads * width, key_BHTD.shape[1] * width
    dtype = compute_dtype(query_BHTD)
    parts = [part.to(dtype).transpose(1, 2).flatten(2).flatten(0, 1) for part in (query_BHTD, key_BHTD, value_BHTD)]
    joined = torch.cat(parts, dim=-1)
    laid_out = joined.index_select(0, documents.source_N)
    outputs, start = [], 0
    for count, longest in documents.groups:
        group = laid_out[start : start + count * longest].view(count, longest, -1)
        start += count * longest
        query, key, value = (
            part.unflatten(-1, (-1, width)).transpose(1, 2)
            for part in group.split([num_query, num_key, num_key], dim=-1)
        )
        attended = _causal(query, key, value, dropout, scaling if scaling is not None else width**-0.5)
        outputs.append(attended.transpose(1, 2).reshape(count * longest, num_query))
    output = torch.cat(outputs).index_select(0, documents.place_BT)
    return output.view(batch, length, heads, width), None


def compute_dtype(query: torch.Tensor) -> torch.dtype:
    """What sdpa would compute in: autocast's dtype where it is on."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def _causal(
    query_GHLD: torch.Tensor, key_GHLD: torch.Tensor, value_GHLD: torch.Tensor, dropout: float, scaling: float
) -> torch.Tensor:
    """Causal attention of one group, (G, H, L, D).

    On CPUs in bfloat16, matrix products with a float32 softmax between them: the backward pass of PyTorch's fused
    kernel took three to five times as long there for documents of 30 to 250 tokens (torch 2.13, AVX512-BF16).
    """
    groups, heads, longest, width = query_GHLD.shape
    repeats = heads // key_GHLD.shape[1]
    plain = query_GHLD.device.type == "cpu" and query_GHLD.dtype == torch.bfloat16 and longest <= LONGEST_SCORES
    if not plain or dropout:
        return F.scaled_dot_product_attention(
            query_GHLD, key_GHLD, value_GHLD, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=repeats > 1
        )
    if repeats > 1:
        key_GHLD, value_GHLD = (part.repeat_interleave(repeats, 1) for part in (key_GHLD, value_GHLD))
    later_LL = torch.full((longest, longest), float("-inf"), dtype=query_GHLD.dtype).triu(1)
    scores = torch.baddbmm(
        later_LL[None], query_GHLD.flatten(0, 1), key_GHLD.flatten(0, 1).transpose(1, 2), alpha=scaling
    )
    shares = scores.softmax(-1, dtype=torch.float32).to(query_GHLD.dtype)
    return torch.bmm(shares, value_GHLD.flatten(0, 1)).view(groups, heads, longest, width)


def register() -> None:
    """Make the attention known to transformers; no mask is made for it. Again and again is fine."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
