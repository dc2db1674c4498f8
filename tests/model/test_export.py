"""Model folders: the same model for our code and for software that knows nothing of it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data import storage
from data.config import GrammarConfig
from data.errors import InputError
from data.store import Record, StreamInfo
from data.text_tokenizer import build_byte_words_tokenizer, encode_text
from data.vocabulary import Vocabulary, build_vocabulary
from model.config import LanguageModelConfig
from model.export import export_model, load_model_folder
from model.lm import add_lora, build_language_model
from model.model_card import ModelCard
from model.train_config import LoraConfig

STREAMS = {"unit": StreamInfo(25.0, 1, 20, "u"), "music": StreamInfo(25.0, 2, 8, "m")}
GRAMMAR = GrammarConfig(
    templates={
        "asr": "[asr] {unit} | [text] {text} [eos]",
        "tts": "[tts] {speaker} {text} | [speech] {unit} [eos]",
        "music": "[music] {caption} | {music} [eos]",
    },
    groups={"asr": ("asr",), "tts": ("tts",)},
)
VOICES = ["anna b", "carl"]
SHAPE = LanguageModelConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=48, max_positions=64)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Vocabulary]:
    """A model folder with merged adapters that do something."""
    root = tmp_path_factory.mktemp("export")
    text_tokenizer = build_byte_words_tokenizer(["red", "blue"])
    vocabulary = build_vocabulary(text_tokenizer, STREAMS, GRAMMAR, VOICES)
    lm = add_lora(build_language_model(SHAPE, vocabulary, 3), LoraConfig(r=2, alpha=4), 3)
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    storage.write_json(root / "tokenizer" / "config.json", {"kind": "none"})
    storage.write_json(root / "vocoder" / "config.json", {"kind": "none"})
    for target in ("model", "again"):
        export_model(
            str(root / target), lm, text_tokenizer, vocabulary, GRAMMAR, VOICES, STREAMS,
            {"unit": str(root / "tokenizer")}, {"unit": str(root / "vocoder")},
            ModelCard(name="tiny", data={"hours": 1}, metrics={"loss": 1.5}),
        )  # fmt: skip
        lm = lm.get_base_model() if hasattr(lm, "get_base_model") else lm
    return root / "model", vocabulary


def test_other_software_sees_the_vocabulary_s_ids(exported: tuple[Path, Vocabulary]) -> None:
    folder, vocabulary = exported
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("<unit.0:17>") == vocabulary.block("unit.0").start + 17
    assert tokenizer.convert_tokens_to_ids("<music.1:7>") == vocabulary.block("music.1").start + 7
    assert tokenizer.convert_tokens_to_ids("[voice:anna b]") == vocabulary.marker_id("[voice:anna b]")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (vocabulary.pad_id, vocabulary.eos_id)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == vocabulary.padded_size
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_a_loaded_folder_renders_and_reads_as_before(exported: tuple[Path, Vocabulary]) -> None:
    folder, vocabulary = exported
    loaded = load_model_folder(str(folder), torch.float64)
    assert loaded.vocabulary == vocabulary
    assert loaded.voices == VOICES
    assert next(loaded.lm.parameters()).dtype == torch.float64
    assert loaded.info["streams"]["music"]["num_codebooks"] == 2
    record = Record("x", "red [eos] blue", "carl", streams={"unit": torch.arange(5).numpy().astype("int16")})
    rendered = loaded.grammars["tts"].render(record, None)
    assert loaded.grammars["tts"].parse(rendered.ids) == rendered.segments
    plain = encode_text(build_byte_words_tokenizer(["red", "blue"]), "red [eos] blue")
    assert encode_text(loaded.text_tokenizer, "red [eos] blue") == plain


def test_the_folder_is_self_contained_and_has_a_card(exported: tuple[Path, Vocabulary]) -> None:
    folder, _ = exported
    assert (folder / "audio_tokenizer" / "unit" / "config.json").exists()
    assert (folder / "vocoder" / "unit" / "config.json").exists()
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "| loss | 1.5 |" in card


def test_exporting_again_gives_the_same_weights(exported: tuple[Path, Vocabulary]) -> None:
    folder, _ = exported
    files = [path / "model.safetensors" for path in (folder, folder.parent / "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_folder_that_is_no_model_folder_is_refused(exported: tuple[Path, Vocabulary], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no model folder"):
        load_model_folder(str(tmp_path))
    info = storage.read_json(exported[0] / "antiphon.json")
    storage.write_json(tmp_path / "antiphon.json", {**info, "format_version": 99})
    with pytest.raises(InputError, match="format_version 99"):
        load_model_folder(str(tmp_path))
