"""Which attention is chosen where, and what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM
from transformers.integrations import flex_attention
from transformers.models.llama import modeling_llama

from data.errors import InputError
from model import varlen_attention
from model.attention import choose_attention, document_arguments, prove_isolation, set_attention
from model.varlen_attention import document_bounds
from tests.model.tiny_training import global_batch, tiny_model

PLAIN = {"hidden_size": 64, "num_attention_heads": 4}


def _config(**fields: Any) -> Any:
    return SimpleNamespace(**{**PLAIN, **fields})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))


def test_cpus_lay_documents_out_anew_and_gpus_take_flash_attention(gpu: None) -> None:
    assert choose_attention("auto", _config(), "cpu", "bf16", 512) == "packed"
    assert choose_attention("auto", _config(), "cuda", "bf16", 512) == "varlen"
    assert choose_attention("auto", _config(), "cuda", "fp32", 512) == "packed"
    assert choose_attention("auto", _config(attention_dropout=0.1), "cuda", "bf16", 512) == "packed"
    assert choose_attention("auto", _config(head_dim=512), "cuda", "bf16", 512) == "packed"
    assert choose_attention("auto", _config(head_dim=36), "cuda", "bf16", 512) == "packed"
    assert choose_attention("flex", _config(), "cuda", "bf16", 512) == "flex"


def test_models_with_windows_or_soft_caps_get_an_attention_that_knows_them(gpu: None) -> None:
    window = _config(sliding_window=256, layer_types=["full_attention", "sliding_attention"])
    assert choose_attention("auto", window, "cpu", "bf16", 512) == "sdpa"
    assert choose_attention("auto", window, "cuda", "bf16", 512) == "flex"
    assert choose_attention("auto", window, "cpu", "bf16", 256) == "packed"
    unused = _config(sliding_window=256, layer_types=["full_attention"])
    assert choose_attention("auto", unused, "cpu", "bf16", 512) == "packed"
    assert choose_attention("auto", _config(attn_logit_softcapping=50.0), "cuda", "bf16", 512) == "eager"


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "fields", "message"),
    [
        ("varlen", "cpu", "bf16", {}, "needs a GPU"),
        ("varlen", "cuda", "fp32", {}, "bf16 or fp16"),
        ("varlen", "cuda", "bf16", {"head_dim": 512}, "at most 256"),
        ("varlen", "cuda", "bf16", {"head_dim": 36}, "multiple of 8"),
        ("flex", "cpu", "bf16", {}, "no backward pass"),
        ("packed", "cpu", "bf16", {"sliding_window": 128}, "no sliding window"),
        ("sdpa", "cpu", "bf16", {"attn_logit_softcapping": 50.0}, "use eager"),
        ("auto", "cpu", "bf16", {"layer_types": ["linear_attention", "full_attention"]}, "'linear_attention'"),
        ("sdpa", "cuda", "bf16", {"layers_block_type": ["mamba", "attention"]}, "'mamba'"),
    ],
)
def test_wrong_combinations_are_refused(
    gpu: None, asked: str, device: str, dtype: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        choose_attention(asked, _config(**fields), device, dtype, 512)


def test_what_a_model_was_told_is_proven_on_it() -> None:
    config = OPTConfig(
        vocab_size=96, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=32
    )
    lm = OPTForCausalLM(config).train()
    prove_isolation(lm, "packed")
    assert lm.training
    for name in ("sdpa", "eager"):  # this family makes a mask of its own, in which documents hear each other
        with pytest.raises(InputError, match="hear each other in OPTForCausalLM"):
            prove_isolation(lm, name)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=96, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(InputError, match="cannot attend by 'packed'"):
        prove_isolation(bloom, "packed")
    with pytest.raises(InputError, match="hear each other in BloomForCausalLM"):
        prove_isolation(bloom, "eager")


@pytest.mark.parametrize("name", ["packed", "varlen", "flex", "sdpa", "eager"])
def test_models_that_go_by_positions_keep_documents_apart(name: str) -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=1, n_head=2))
    for lm in (tiny_model(), tiny_model(lora=True).get_base_model(), gpt2):
        state = torch.get_rng_state()
        prove_isolation(lm, name)
        assert torch.equal(state, torch.get_rng_state())


def test_the_proof_changes_tokens_whatever_the_vocabulary_s_size() -> None:
    for vocab_size in (16, 7919):
        bloom = BloomForCausalLM(BloomConfig(vocab_size=vocab_size, hidden_size=8, n_layer=1, n_head=2))
        with pytest.raises(InputError, match="hear each other"):
            prove_isolation(bloom, "eager")


def test_an_old_gpu_or_pytorch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert "8.0" in str(varlen_attention.missing("cuda", "bf16", 64))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", lambda query: query)
    assert "newer PyTorch" in str(varlen_attention.missing("cuda", "bf16", 64))


def test_bounds_cut_the_rows_where_documents_start() -> None:
    for step in range(10):
        positions_BT = global_batch(step).position_ids_BT
        bounds = document_bounds(positions_BT)
        assert bounds.starts.dtype == torch.int32
        lengths = bounds.starts.diff()
        assert int(lengths.max()) == bounds.longest
        rebuilt = torch.cat([torch.arange(int(length)) for length in lengths])
        assert torch.equal(rebuilt, positions_BT.flatten())


def test_varlen_gives_each_document_its_own_causal_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is PyTorch's and needs a GPU; here a plain loop with its signature stands in for it."""

    def loop(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, *rest: Any, scale: float,
        window_size: tuple[int, int], enable_gqa: bool,
    ) -> torch.Tensor:  # fmt: skip
        assert window_size == (-1, 0)
        parts = []
        for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            one = [part[start:stop].transpose(0, 1)[None] for part in (query, key, value)]
            attended = torch.nn.functional.scaled_dot_product_attention(
                *one, is_causal=True, scale=scale, enable_gqa=enable_gqa
            )
            parts.append(attended[0].transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", loop)
    batch, model = global_batch(2), tiny_model()
    hidden = []
    for name in ("varlen", "packed"):
        set_attention(model, name)
        arguments = document_arguments(model, batch.position_ids_BT)
        hidden.append(
            model.get_decoder()(
                input_ids=batch.ids_BT, position_ids=batch.position_ids_BT, use_cache=False, **arguments
            ).last_hidden_state
        )
    assert torch.allclose(*hidden, atol=1e-5)


def test_models_without_attention_are_refused() -> None:
    with pytest.raises(InputError, match="'mamba'"):
        choose_attention("auto", SimpleNamespace(model_type="mamba", hidden_size=64), "cpu", "fp32", 512)


def test_flex_attention_sees_one_dtype_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel needs a GPU; its backward pass refuses queries and keys of another dtype than the values."""
    seen = []

    def forward(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **kw: Any) -> Any:
        seen.append([query.dtype, key.dtype, value.dtype])
        return value.transpose(1, 2), None

    monkeypatch.setattr(flex_attention, "flex_attention_forward", forward)
    monkeypatch.setattr(modeling_llama, "create_causal_mask", lambda *_, **__: None)
    batch, model = global_batch(0), tiny_model()
    set_attention(model, "flex")
    with torch.autocast("cpu", torch.bfloat16):
        model.get_decoder()(input_ids=batch.ids_BT, position_ids=batch.position_ids_BT, use_cache=False)
    assert seen == [[torch.bfloat16] * 3] * 2
