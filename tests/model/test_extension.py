"""Pretrained models of four families get rows for new ids and keep the old ones, bit by bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    Qwen2Config,
    Qwen2Tokenizer,
)

from data.config import GrammarConfig
from data.errors import InputError
from data.grammar.template import build_grammars
from data.store import StreamInfo
from data.text_tokenizer import build_byte_words_tokenizer, encode_text
from data.vocabulary import Vocabulary, build_vocabulary
from model.config import LanguageModelConfig
from model.decode import Prompt, generate, step_model
from model.export import check_text_tokenizer, export_model
from model.lm import build_language_model

TOKENIZER = build_byte_words_tokenizer(["red", "blue"])
STREAMS = {"unit": StreamInfo(25.0, 1, 40, "u")}
GRAMMAR = GrammarConfig(templates={"asr": "[asr] {unit} | {text} [eos]"}, groups={"asr": ("asr",)})
VOCABULARY = build_vocabulary(TOKENIZER, STREAMS, GRAMMAR, [])
KNOWN = len(TOKENIZER)
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
FAMILIES = {
    "llama, tied": LlamaConfig(vocab_size=KNOWN, tie_word_embeddings=True, **SHAPE),
    "llama, untied": LlamaConfig(vocab_size=KNOWN, tie_word_embeddings=False, **SHAPE),
    "qwen2, some rows to spare": Qwen2Config(
        vocab_size=KNOWN + 20, tie_word_embeddings=True, num_key_value_heads=2, **SHAPE
    ),
    "gpt-neox, rows for all": GPTNeoXConfig(vocab_size=512, tie_word_embeddings=False, **SHAPE),
    "opt, which names its spread otherwise": OPTConfig(vocab_size=KNOWN, ffn_dim=48, word_embed_proj_dim=32, **SHAPE),
}


# transformers reads the tokenizer of a folder with a Qwen2 as Qwen2's, whatever was saved there.
_BYTES = {byte: index for index, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
QWEN = Qwen2Tokenizer(vocab={**_BYTES, "re": 256, "<|endoftext|>": 257}, merges=[("r", "e")])


def tokenizer_of(model: Any) -> Any:
    """A tokenizer of the model's family; all have as many ids."""
    return QWEN if model.config.model_type == "qwen2" else TOKENIZER


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any]:
    """A folder with a random model of the family, and the model."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[request.param])
    model.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base"), model


def extended(path: str, seed: int = 1, vocabulary: Vocabulary = VOCABULARY, **fields: Any) -> Any:
    """The model of `path` with rows for the vocabulary."""
    return build_language_model(LanguageModelConfig(path=path, **fields), vocabulary, seed)


def embeddings(model: Any) -> list[torch.Tensor]:
    """Input and output embeddings."""
    return [layer.weight.detach() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]


def test_old_rows_stay_and_new_ones_depend_on_the_seed_alone(base: tuple[str, Any]) -> None:
    path, model = base
    torch.manual_seed(7)
    first = extended(path)
    torch.manual_seed(8)
    for old, one, same, other in zip(
        *map(embeddings, (model, first, extended(path), extended(path, seed=2))), strict=True
    ):
        assert len(one) >= VOCABULARY.size
        assert torch.equal(one[:KNOWN], old[:KNOWN])
        assert torch.equal(one, same)
        assert not torch.equal(one[KNOWN : VOCABULARY.size], other[KNOWN : VOCABULARY.size])
        assert torch.equal(one[VOCABULARY.size : len(old)], old[VOCABULARY.size :])


def test_tied_stay_tied_and_untied_get_draws_of_their_own(base: tuple[str, Any]) -> None:
    inputs, outputs = embeddings(extended(base[0]))
    assert (inputs.data_ptr() == outputs.data_ptr()) == base[1].config.tie_word_embeddings
    tied = base[1].config.tie_word_embeddings
    assert tied or not torch.allclose(inputs[KNOWN : VOCABULARY.size], outputs[KNOWN : VOCABULARY.size])


def test_the_embedding_grows_to_a_multiple_of_64_only_where_it_must(base: tuple[str, Any]) -> None:
    path, model = base
    rows, before = len(embeddings(extended(path))[0]), model.config.vocab_size
    assert rows == max(before, VOCABULARY.padded_size)


def test_a_model_with_rows_for_all_ids_but_not_for_the_padding_can_be_decoded(tmp_path: Path) -> None:
    assert VOCABULARY.size + 1 < VOCABULARY.padded_size
    shape = LlamaConfig(vocab_size=VOCABULARY.size + 1, **SHAPE)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)
    grammar = build_grammars(GRAMMAR, VOCABULARY, TOKENIZER)["asr"]
    prompt = Prompt(np.array([VOCABULARY.marker_id("[asr]")], np.int32), grammar.continuation, 3)
    (generated,) = generate(step_model(extended(str(tmp_path)).eval()), [prompt])
    assert len(generated.ids)


def test_ids_of_the_tokenizer_that_the_model_has_no_rows_for_are_new(tmp_path: Path) -> None:
    shape = LlamaConfig(vocab_size=KNOWN - 2, **SHAPE)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)
    drawn = []
    for seed in (7, 8):
        torch.manual_seed(seed)
        drawn.append(embeddings(extended(str(tmp_path)))[0])
    assert torch.equal(*drawn)


def test_each_rule_draws_what_its_name_says(base: tuple[str, Any]) -> None:
    path, model = base
    old_VD = embeddings(model)[0][:KNOWN]
    rows = {rule: embeddings(extended(path, new_rows=rule))[0] for rule in ("mean", "mean_covariance", "random")}
    new = {rule: weight_VD[KNOWN : VOCABULARY.size] for rule, weight_VD in rows.items()}
    assert torch.allclose(new["mean"], old_VD.mean(dim=0).expand_as(new["mean"]), atol=1e-7)
    assert new["random"].std() == pytest.approx(getattr(model.config, "initializer_range", 0.02), rel=0.1)
    assert new["mean_covariance"].std(dim=0).mean() == pytest.approx(old_VD.std(dim=0).mean().item(), rel=0.2)


def test_draws_follow_the_covariance_of_the_known_rows(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["llama, tied"])
    direction_D = torch.linspace(-1, 1, SHAPE["hidden_size"])
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = 3 + torch.randn(KNOWN, 1) * direction_D
    model.save_pretrained(tmp_path)
    new_ND = embeddings(extended(str(tmp_path)))[0][KNOWN:] - 3
    along_N = new_ND @ direction_D / direction_D.norm() ** 2
    assert torch.allclose(new_ND, along_N[:, None] * direction_D, atol=0.3)
    assert along_N.std() > 0.5


def test_a_saved_folder_gives_other_software_the_same_ids_and_logits(base: tuple[str, Any], tmp_path: Path) -> None:
    model = extended(base[0]).eval()
    text_tokenizer = tokenizer_of(model)
    export_model(str(tmp_path / "out"), model, text_tokenizer, VOCABULARY, GRAMMAR, [], STREAMS, {}, {})
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("<unit.0:3><unit.0:39>[eos]", add_special_tokens=False)["input_ids"]
    for text in ("red [eos] blue", "Zoë's 12 ﬁne 漢字 <unit.0:3>"):
        assert encode_text(tokenizer, text) == encode_text(text_tokenizer, text)
    assert ids == [VOCABULARY.block("unit.0").start + 3, VOCABULARY.block("unit.0").start + 39, VOCABULARY.eos_id]
    ids_1T = torch.tensor([ids])
    with torch.no_grad():
        assert torch.equal(read(input_ids=ids_1T).logits, model(input_ids=ids_1T).logits)


WIDER_STREAMS = {**STREAMS, "music": StreamInfo(50.0, 4, 30, "m")}
WIDER_GRAMMAR = GrammarConfig(
    templates={**GRAMMAR.templates, "music": "[music] {caption} | {music} [eos]"}, groups={"music": ("music",)}
)


def test_a_model_folder_gets_blocks_appended_and_keeps_every_row(base: tuple[str, Any], tmp_path: Path) -> None:
    first = extended(base[0]).eval()
    speech, both = str(tmp_path / "speech"), str(tmp_path / "both")
    export_model(speech, first, tokenizer_of(first), VOCABULARY, GRAMMAR, [], STREAMS, {}, {})
    tokenizer = AutoTokenizer.from_pretrained(speech)
    wider = build_vocabulary(tokenizer, WIDER_STREAMS, WIDER_GRAMMAR, ["zoe"], VOCABULARY)
    assert wider.blocks[: len(VOCABULARY.blocks)] == VOCABULARY.blocks
    known = VOCABULARY.size
    for rule in ("mean", "random", "mean_covariance"):
        config = LanguageModelConfig(path=speech, new_rows=rule)
        model = build_language_model(config, wider, 3, known_ids=known).eval()
        for old_VD, new_VD in zip(embeddings(first), embeddings(model), strict=True):
            assert torch.equal(new_VD[:known], old_VD[:known])
            assert len(new_VD) == (len(old_VD) if len(old_VD) >= wider.size else wider.padded_size)
            assert not torch.equal(new_VD[known : len(old_VD)], old_VD[known:])  # spare rows are used first
            assert (rule == "mean") == torch.allclose(new_VD[known : wider.size], old_VD[:known].mean(dim=0), atol=1e-6)
    ids_1T = torch.arange(known)[None]
    with torch.no_grad():
        logits = [lm(input_ids=ids_1T).logits[..., :known] for lm in (model, first)]
    assert torch.allclose(*logits, atol=1e-6)
    export_model(both, model, tokenizer, wider, WIDER_GRAMMAR, ["zoe"], WIDER_STREAMS, {}, {})
    again, read = AutoTokenizer.from_pretrained(both), AutoModelForCausalLM.from_pretrained(both)
    assert again.convert_tokens_to_ids(wider.added_tokens()) == list(range(KNOWN, wider.size))
    assert again("[music]<music.3:29>", add_special_tokens=False)["input_ids"] == [
        wider.marker_id("[music]"),
        wider.codebooks("music")[3].start + 29,
    ]
    ids_1T = torch.tensor([[1, wider.marker_id("[music]"), *wider.encode_stream("music", [1, 2, 3, 4]).tolist()]])
    with torch.no_grad():
        assert torch.equal(read(input_ids=ids_1T).logits, model(input_ids=ids_1T).logits)


def test_a_text_tokenizer_that_the_family_reads_otherwise_is_refused_before_training(
    base: tuple[str, Any],
) -> None:
    path, model = base
    check_text_tokenizer(tokenizer_of(model), path)
    if model.config.model_type == "qwen2":
        with pytest.raises(InputError, match=r"text: \{kind: pretrained, path: .*base"):
            check_text_tokenizer(TOKENIZER, path)
