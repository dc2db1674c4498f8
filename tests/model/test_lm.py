"""Making, extending and adapting language models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from data.errors import InputError
from model.config import LanguageModelConfig
from model.lm import add_lora, build_language_model, count_parameters, load_language_model, merge_lora
from model.train_config import LoraConfig
from tests.model.tiny_training import VOCABULARY, tiny_model


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = tiny_model(seed=1)
    torch.manual_seed(6)
    states = [model.state_dict() for model in (first, tiny_model(seed=1), tiny_model(seed=2))]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert first.get_input_embeddings().num_embeddings == VOCABULARY.padded_size


def test_only_adapters_train_and_merging_takes_them_in() -> None:
    model = add_lora(tiny_model(), LoraConfig(r=2, alpha=4), 1)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all("lora" in name for name in trainable)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    ids_BT = torch.arange(8)[None]
    adapted = model(input_ids=ids_BT, use_cache=False).logits
    merged = merge_lora(model)
    assert torch.allclose(adapted, merged(input_ids=ids_BT, use_cache=False).logits, atol=1e-5)
    assert count_parameters(merged) == count_parameters(tiny_model())


@pytest.mark.parametrize("targets", [("lm_head",), ("embed_tokens", "q_proj"), ("embed_tokens", "lm_head")])
def test_merging_adapters_of_tied_tables_parts_these(tmp_path: Path, targets: tuple[str, ...]) -> None:
    model = add_lora(tiny_model(), LoraConfig(r=2, alpha=4, targets=targets), 1).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    ids_BT = torch.arange(8)[None]
    adapted = model(input_ids=ids_BT, use_cache=False).logits
    merge_lora(model).save_pretrained(tmp_path)
    read = load_language_model(str(tmp_path)).eval()
    assert torch.allclose(adapted, read(input_ids=ids_BT, use_cache=False).logits, atol=1e-5)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a multiple"):
        build_language_model(LanguageModelConfig(hidden_size=30, num_heads=4), VOCABULARY)
    with pytest.raises(InputError, match="no causal language model"):
        build_language_model(LanguageModelConfig(path=str(tmp_path)), VOCABULARY)
    with pytest.raises(InputError, match="do not fit the model"):
        add_lora(tiny_model(), LoraConfig(targets=("nowhere",)), 1)
    for fields in ({"targets": "all-linear", "layers": (0,)}, {"targets": "("}):
        with pytest.raises(InputError, match="do not fit the model"):
            add_lora(tiny_model(), LoraConfig(**fields), 1)


def test_a_pretrained_model_gets_another_base_of_its_rotary_positions(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    kept = build_language_model(LanguageModelConfig(path=str(tmp_path)), VOCABULARY)
    moved = build_language_model(LanguageModelConfig(path=str(tmp_path), rope_theta=50000), VOCABULARY)
    assert kept.config.rope_parameters["rope_theta"] == tiny_model().config.rope_parameters["rope_theta"]
    assert moved.config.rope_parameters["rope_theta"] == 50000
    ids_BT = torch.arange(16)[None]
    logits = [model.eval()(input_ids=ids_BT, use_cache=False).logits for model in (kept, moved)]
    assert not torch.allclose(*logits)
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=64)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(InputError, match="no rotary positions"):
        build_language_model(LanguageModelConfig(path=str(tmp_path / "gpt2"), rope_theta=50000), VOCABULARY)


@pytest.mark.parametrize(
    ("fields", "adapted", "spared"),
    [
        ({"targets": "all-linear"}, "down_proj", "lm_head"),
        ({"targets": r".*layers\.1\.self_attn\.[qk]_proj"}, "layers.1.self_attn.q_proj", "layers.0"),
        ({"layers": (0,), "exclude": ("q_proj",)}, "layers.0.self_attn.k_proj", "q_proj"),
    ],
)
def test_adapters_take_any_target_set_of_peft(fields: dict[str, Any], adapted: str, spared: str) -> None:
    model = add_lora(tiny_model(), LoraConfig(r=2, alpha=4, **fields), 1)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any(adapted in name for name in names)
    assert not any(spared in name for name in names)
