"""The language model: a Llama from scratch or a pretrained one, with one embedding row for each id of the vocabulary.

Any model that AutoModelForCausalLM loads and that has `get_decoder` and `get_output_embeddings` will do.
"""

import re
from typing import Any

import torch

from data import storage
from data.errors import InputError
from data.vocabulary import TEXT_BLOCK, Vocabulary
from model.config import LanguageModelConfig
from model.extension import extend_embeddings
from model.train_config import LoraConfig

ATTENTION = "sdpa"


def build_language_model(
    config: LanguageModelConfig, vocabulary: Vocabulary, seed: int = 0, known_ids: int | None = None
) -> Any:
    """A float32 causal LM with at least `vocabulary.padded_size` embedding rows, in training mode.

    From scratch the weights depend on `seed` alone, and input and output embeddings are tied. A pretrained model
    keeps the rows of the ids below `known_ids` (by default those of the text) and gets new ones for the others, by
    `config.new_rows` (see model/extension.py).
    Raises InputError when `config.path` holds no model, or the heads do not divide the width.
    """
    if config.path is not None:
        model = load_language_model(config.path, config.rope_theta)
        known_ids = vocabulary.block(TEXT_BLOCK).size if known_ids is None else known_ids
        extend_embeddings(model, vocabulary, known_ids, config.new_rows, seed)
        return model.train()
    from transformers import LlamaConfig, LlamaForCausalLM

    if config.hidden_size % config.num_heads:
        raise InputError(
            f"lm.hidden_size={config.hidden_size} is not a multiple of lm.num_heads={config.num_heads}: change one"
        )
    shape = LlamaConfig(
        vocab_size=vocabulary.padded_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=True,
        pad_token_id=vocabulary.pad_id,
        bos_token_id=None,
        eos_token_id=vocabulary.eos_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(shape).float().train()
    model.set_attn_implementation(ATTENTION)
    return model


def load_language_model(path: str, rope_theta: float | None = None) -> Any:
    """The float32 causal LM of a Hugging Face folder, URL or hub id, on another base of its rotary positions if asked.

    Raises InputError when there is none, or none with such positions.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    local = str(storage.local_folder(path)) if storage.is_url(path) else path
    try:
        shape = AutoConfig.from_pretrained(local)
        if rope_theta is not None:
            _set_rope_theta(shape, rope_theta, path)
        return AutoModelForCausalLM.from_pretrained(
            local, config=shape, dtype=torch.float32, attn_implementation=ATTENTION
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path!r} holds no causal language model: give a model folder or a hub id ({error})"
        ) from None


def _set_rope_theta(shape: Any, rope_theta: float, path: str) -> None:
    known = getattr(shape, "rope_parameters", None) or {}
    if "rope_theta" not in known:
        raise InputError(f"lm.rope_theta={rope_theta:g}: {path!r} has no rotary positions of one base; set it to null")
    shape.rope_parameters = {**known, "rope_theta": rope_theta}


def add_lora(model: Any, config: LoraConfig, seed: int) -> Any:
    """`model` with low-rank adapters (Hu et al. 2021), the only weights that still train.

    Raises InputError when the targets fit no module.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            adapters = PeftLoraConfig(
                r=config.r,
                lora_alpha=config.alpha,
                lora_dropout=config.dropout,
                target_modules=config.targets if isinstance(config.targets, str) else list(config.targets),
                exclude_modules=list(config.exclude) or None,
                layers_to_transform=list(config.layers) if config.layers is not None else None,
                task_type="CAUSAL_LM",
            )
            return get_peft_model(model, adapters)
        except (ValueError, re.error) as error:
            raise InputError(f"lora.targets={config.targets!r} do not fit the model: {error}") from None


def merge_lora(model: Any) -> Any:
    """The plain model with its adapters folded into the weights; a model without adapters comes back as it is.

    Adapters on one of two tied tables change that one alone, so these are parted first.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    lm = model.get_base_model()
    tables = lm.get_input_embeddings(), lm.get_output_embeddings()
    if tables[0].weight is tables[1].weight and any(hasattr(table, "base_layer") for table in tables):
        head = getattr(tables[1], "base_layer", tables[1])
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        lm.config.tie_word_embeddings = False
    return model.merge_and_unload()


def plain_language_model(model: Any) -> Any:
    """The causal LM inside a peft wrapper, adapters in place; any other model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def count_parameters(model: torch.nn.Module) -> int:
    """Number of weights, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
