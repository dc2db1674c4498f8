"""Pretrained models of three families get rows for new ids and keep the old ones, bit by bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig, LlamaConfig, Qwen2Config

from data.config import GrammarConfig
from data.store import StreamInfo
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import Vocabulary, build_vocabulary
from model.config import LanguageModelConfig
from model.export import export_model
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
}


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
    assert rows == (before if before >= VOCABULARY.size else VOCABULARY.padded_size)


def test_each_rule_draws_what_its_name_says(base: tuple[str, Any]) -> None:
    path, model = base
    old_VD = embeddings(model)[0][:KNOWN]
    rows = {rule: embeddings(extended(path, new_rows=rule))[0] for rule in ("mean", "mean_covariance", "random")}
    new = {rule: weight_VD[KNOWN : VOCABULARY.size] for rule, weight_VD in rows.items()}
    assert torch.allclose(new["mean"], old_VD.mean(dim=0).expand_as(new["mean"]), atol=1e-7)
    assert new["random"].std() == pytest.approx(model.config.initializer_range, rel=0.1)
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
    export_model(str(tmp_path / "out"), model, TOKENIZER, VOCABULARY, GRAMMAR, [], STREAMS, {}, {})
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("<unit.0:3><unit.0:39>[eos]", add_special_tokens=False)["input_ids"]
    assert ids == [VOCABULARY.block("unit.0").start + 3, VOCABULARY.block("unit.0").start + 39, VOCABULARY.eos_id]
    ids_1T = torch.tensor([ids])
    with torch.no_grad():
        assert torch.equal(read(input_ids=ids_1T).logits, model(input_ids=ids_1T).logits)
