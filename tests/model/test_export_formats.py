"""A model folder of a recipe with named formats."""

from pathlib import Path

import numpy as np

from data.config import GrammarConfig
from data.grammar.formats.spiritlm import SpiritLmBase
from data.grammar.template import build_grammars
from data.store import Record, StreamInfo
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import build_vocabulary
from model.config import LanguageModelConfig
from model.export import export_model, load_model_folder, read_info
from model.lm import build_language_model

TOKENIZER = build_byte_words_tokenizer(["one", "two"])


def test_a_model_folder_says_its_formats(tmp_path: Path) -> None:
    config = GrammarConfig(
        templates={"asr": "[asr] {unit} | {text} [eos]"},
        formats={"mix": SpiritLmBase(end="[eos]", text_words=(1, 2))},
        groups={"all": ("asr", "mix")},
    )
    streams = {"unit": StreamInfo(25.0, 1, 20, "u")}
    vocabulary = build_vocabulary(TOKENIZER, streams, config, [])
    shape = LanguageModelConfig(hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16, max_positions=64)
    lm = build_language_model(shape, vocabulary, seed=1)
    export_model(str(tmp_path / "m"), lm, TOKENIZER, vocabulary, config, [], streams, {}, {})
    assert read_info(str(tmp_path / "m"))["formats"]["mix"]["text_words"] == [1, 2]
    folder = load_model_folder(str(tmp_path / "m"))
    record = Record("r", text="one", streams={"unit": np.array([1, 2], np.int16)})
    expected = build_grammars(config, vocabulary, TOKENIZER, streams)["mix"].render(record)
    assert folder.grammars["mix"].render(record).ids.tolist() == expected.ids.tolist()
    assert "spiritlm_base" in (tmp_path / "m" / "README.md").read_text()
