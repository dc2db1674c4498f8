"""How packed documents attend, chosen by device, and said aloud.

| name     | what it is                                              | where                                  |
|----------|---------------------------------------------------------|----------------------------------------|
| `packed` | documents of like length as batches (packed_attention)  | everywhere; cost: squared lengths      |
| `varlen` | PyTorch's FlashAttention over cumulative lengths        | GPUs from compute capability 8.0       |
| `flex`   | flex_attention with transformers' block mask            | GPUs (no backward pass on CPUs)        |
| `sdpa`   | transformers' block-diagonal mask over the whole row    | everywhere; cost: squared row length   |
| `eager`  | the same mask, softmax written out                      | everywhere; for models with soft caps  |

transformers tells documents apart by restarting position ids only without an attention mask and without a cache:
with either, documents hear each other, silently. So `hidden_states` passes neither, a model that was set to attend here
refuses rows of several documents that come with either, and implementations that go by other rules are refused
(transformers' own FlashAttention separates the documents of a single row, but not those of several).
"""

from typing import Any

import torch

from data.errors import InputError
from model import packed_attention, varlen_attention

# Our name -> transformers' name.
IMPLEMENTATIONS = {
    "packed": packed_attention.NAME,
    "varlen": varlen_attention.NAME,
    "flex": "flex_attention",
    "sdpa": "sdpa",
    "eager": "eager",
}
STAND_INS = {"varlen": "packed", "flex": "sdpa"}  # by the same rules, in float32 and without compiling
PROOF_TOKENS, PROOF_TOLERANCE = 8, 1e-5  # of each of two documents; of the largest value
LAYER_KINDS = ("layer_types", "layers_block_type", "block_types")  # where configurations tell what their layers are


def choose_attention(asked: str, config: Any, device: torch.device | str, dtype: str, row_tokens: int) -> str:
    """One of the names above for a model with transformers' `config`. Raises InputError for a wrong combination."""
    _check_layers(config)
    kind = torch.device(device).type
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    lacking = varlen_attention.missing(device, dtype, head_width)
    dropout = getattr(config, "attention_dropout", 0.0)
    if dropout and lacking is None:
        lacking = f"attention_dropout 0 (the model has {dropout:g})"
    capped, windowed = _soft_cap(config), _window(config, row_tokens)
    if asked == "auto":
        if capped:
            return "eager"
        if windowed:
            return "flex" if kind == "cuda" else "sdpa"
        return "varlen" if lacking is None else "packed"
    if asked == "varlen" and lacking is not None:
        raise InputError(f"train.attention=varlen needs {lacking}: use auto")
    if asked == "flex" and kind != "cuda":
        raise InputError("train.attention=flex has no backward pass on CPUs: use packed")
    if windowed and asked in ("packed", "varlen"):
        raise InputError(
            f"train.attention={asked} knows no sliding window and the model's is {windowed} tokens, shorter than "
            f"rows of {row_tokens}: use auto, sdpa or flex"
        )
    if capped and asked not in ("eager", "flex"):
        raise InputError(f"train.attention={asked} knows no soft cap of the scores, which the model has: use eager")
    return asked


def set_attention(lm: Any, name: str, compiled: bool = False) -> None:
    """Make `lm` attend by `name`. In compiled models ours stay outside the graph: their shapes follow the documents.

    Raises InputError for a model that attends in its own way alone.
    """
    from transformers import AttentionInterface

    for ours in (packed_attention, varlen_attention):
        function = ours.packed_attention if ours is packed_attention else varlen_attention.varlen_attention
        AttentionInterface.register(ours.NAME, torch.compiler.disable(function) if compiled else function)
    AttentionInterface.register(IMPLEMENTATIONS["flex"], flex_attention)
    lm.set_attn_implementation(IMPLEMENTATIONS[name])
    if lm.config._attn_implementation != IMPLEMENTATIONS[name]:  # transformers only warns
        raise InputError(
            f"{type(lm).__name__} cannot attend by {name!r}: set train.attention={lm.config._attn_implementation}"
        )
    decoder = lm.get_decoder()
    if refuse_mixing not in decoder._forward_pre_hooks.values():
        decoder.register_forward_pre_hook(refuse_mixing, with_kwargs=True)


@torch.no_grad()
def prove_isolation(lm: Any, name: str) -> None:
    """Raises InputError when a document hears its neighbour, or a token what follows it, in `lm` attending by `name`.

    Not every model goes by restarting positions: OPT, BLOOM, MPT and XGLM make masks of their own, silently. So two
    short documents are read twice, with other tokens in the first and at the end: nothing between may differ.
    """
    set_attention(lm, STAND_INS.get(name, name))
    position_ids_BT = torch.arange(PROOF_TOKENS, device=lm.device).repeat(1, 2)
    stride = lm.config.vocab_size // (2 * PROOF_TOKENS)  # ids that differ, from all over the vocabulary
    ids_BT = torch.arange(2 * PROOF_TOKENS, device=lm.device)[None] * max(1, stride) % lm.config.vocab_size
    others_BT = ids_BT.clone()
    others_BT[:, [PROOF_TOKENS // 2, -1]] = ids_BT[:, [0, PROOF_TOKENS]]
    training = lm.training
    lm.eval()
    kept, changed = (hidden_states(lm, each_BT, position_ids_BT)[:, PROOF_TOKENS:-1] for each_BT in (ids_BT, others_BT))
    lm.train(training)
    if (kept - changed).abs().max() > PROOF_TOLERANCE * kept.abs().max():
        raise InputError(
            f"documents packed into a row hear each other in {type(lm).__name__} with train.attention={name}: set it "
            "to auto, or start from a model that goes by position_ids (Llama, Qwen, Mistral, GPT-NeoX and most others)"
        )


def hidden_states(lm: Any, ids_BT: torch.Tensor, position_ids_BT: torch.Tensor) -> torch.Tensor:
    """The decoder's last states (B, T, H) of packed rows, whose positions restart at every document.

    Raises InputError when the model's attention would not separate them.
    """
    # No attention mask and no cache: only so does transformers separate documents by their restarting positions.
    output = lm.get_decoder()(
        input_ids=ids_BT,
        position_ids=position_ids_BT,
        attention_mask=None,
        use_cache=False,
        **document_arguments(lm, position_ids_BT),
    )
    states_BTH: torch.Tensor = output.last_hidden_state
    return states_BTH


def flex_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **kwargs: Any
) -> Any:
    """transformers' flex attention in one dtype. Under autocast rotary positions leave queries and keys in float32
    beside values in bfloat16, which its backward pass does not take."""
    from transformers.integrations.flex_attention import flex_attention_forward

    dtype = packed_attention.compute_dtype(query)
    return flex_attention_forward(module, query.to(dtype), key.to(dtype), value.to(dtype), *rest, **kwargs)


def refuse_mixing(decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before a decoder's forward pass: raises ValueError for rows of several documents with a cache (transformers'
    default) or an attention mask (be it all ones), with either of which the documents would hear each other."""
    cached = kwargs.get("use_cache")
    if kwargs.get("attention_mask") is None and not (decoder.config.use_cache if cached is None else cached):
        return
    positions = kwargs.get("position_ids")
    if positions is not None and bool((positions.diff(dim=-1) != 1).any()):
        raise ValueError(
            "packed rows (position_ids restart) need attention_mask=None and use_cache=False: with a mask or a cache "
            "transformers would let their documents attend to each other"
        )


def document_arguments(lm: Any, position_ids_BT: torch.Tensor) -> dict[str, Any]:
    """What the decoder's forward pass needs beside ids and positions.

    Raises InputError when the model's attention would not separate packed documents.
    """
    kind = lm.config._attn_implementation
    if kind == packed_attention.NAME:
        return {"documents": packed_attention.layout_documents(position_ids_BT)}
    if kind == varlen_attention.NAME:
        return {"documents": varlen_attention.document_bounds(position_ids_BT)}
    if kind not in IMPLEMENTATIONS.values():
        raise InputError(
            f"attention {kind!r} does not separate packed documents by position ids: use one of "
            f"{sorted(IMPLEMENTATIONS)}"
        )
    return {}


def _check_layers(config: Any) -> None:
    """Refuse layers whose state runs on over a row (Mamba, linear attention): restarting positions do not stop it."""
    kinds = {kind for name in LAYER_KINDS for kind in getattr(config, name, None) or ()}
    if not hasattr(config, "num_attention_heads"):
        kinds.add(str(getattr(config, "model_type", "unknown")))
    if others := sorted(kinds - {"full_attention", "sliding_attention", "attention"}):
        raise InputError(
            f"the model has layers of kind {others[0]!r}, for which documents packed into a row are not kept apart: "
            "start from a model with full or sliding attention alone"
        )


def _soft_cap(config: Any) -> bool:
    return getattr(config, "attn_logit_softcapping", None) is not None


def _window(config: Any, row_tokens: int) -> int | None:
    """The model's sliding window where rows are longer than it."""
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return window if row_tokens > window else None
