"""`python -m data.grammar`."""

import json
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from data.grammar.command import main
from data.grammar.formats import KINDS
from data.grammar.instructions import built_in
from data.text_tokenizer import build_byte_words_tokenizer, decode_text

GOLDEN: dict[str, Any] = {
    "id": "g",
    "text": "hello you",
    "words": [["hello", 0.0, 0.1], ["you", 0.1, 0.24]],
    "streams": {
        "unit": {"codes": [78, 42, 81, 159, 316, 259], "durations": None, "frame_rate_hz": 25.0},
        "pitch": {"codes": [13, 13, 3], "frame_rate_hz": 12.5},
        "style": {"codes": [81], "frame_rate_hz": 1.0},
    },
}
FULL = GOLDEN | {
    "response": {"text": "four", "streams": {"unit": {"codes": [661, 661]}}},
    "rejected": {"text": "five", "streams": {"unit": [9]}},
}


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `show` on a record given as JSON."""

    def run(grammar: str, record: Any, *arguments: str) -> dict[str, Any]:
        path = tmp_path / "record.json"
        path.write_text(json.dumps(record))
        code = main(["show", grammar, str(path), *arguments])
        output = capsys.readouterr()
        assert code == 0, output.err
        assert output.out.count("\n") == 1
        return json.loads(output.out)

    return run


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", ["0", "7"])
def test_every_grammar_shows_a_record(shown: Any, kind: str, seed: str) -> None:
    result = shown(kind, FULL, "--seed", seed)
    assert list(result) == ["ids", "loss_mask", "segments", "tokens", "parsed"]
    assert result["parsed"] == result["segments"]
    assert len(result["ids"]) == len(result["loss_mask"]) == len(result["tokens"])
    assert set(result["segments"][0]) == {"kind", "slot", "content", "start", "end"}
    assert shown(kind, FULL, "--seed", seed) == result


def test_tokens_are_spelt_as_the_publications_spell_them(shown: Any) -> None:
    assert shown("spiritlm_expressive", GOLDEN)["tokens"] == [
        "[Speech]", "[St81]", "[Pi13]", "[Hu78]", "[Hu42]", "[Hu81]", "[Hu159]", "[Pi3]", "[Hu316]", "[Hu259]",
    ]  # fmt: skip
    chains = [shown("speechgpt_chain_of_modality", FULL, "--seed", str(seed))["tokens"] for seed in range(12)]
    spoken = next(tokens for tokens in chains if "[tq]" in tokens and "[ua]" in tokens)
    for token in ("<sosp>", "<661>", "<eosp>", "<eoh>", "[ta]", "<eoa>", "[SpeechGPT]"):
        assert token in spoken
    music = {"caption": "slow", "kind": "music", "streams": {"music": {"codes": [[1, 2, 3, 4]]}}}
    assert {"<somu>", "<🎶1>", "<🎶2050>", "<🎶4099>", "<🎶6148>"} < set(shown("anygpt", music)["tokens"])


def test_a_seed_draws_what_a_stream_would_draw(shown: Any) -> None:
    drawn = {tuple(shown("spiritlm_pairs", GOLDEN, "--seed", str(seed))["ids"]) for seed in range(8)}
    assert len(drawn) == 2


def test_records_in_a_list_are_turns_of_one_sequence(shown: Any) -> None:
    result = shown("speechgpt_cross_modal", [GOLDEN, FULL["response"]])
    assert result["tokens"].count("[Human]") == 2
    assert [segment["content"] for segment in result["segments"] if segment["kind"] == "text"] == ["hello you", "four"]


def test_stored_durations_and_own_streams_are_read(shown: Any) -> None:
    stored = {"streams": {"unit": {"codes": [1200, 3], "durations": [4, 2], "frame_rate_hz": 50.0}}}
    assert shown("unit_lm", stored)["tokens"] == ["[lm]", "<unit.0:1200>", "<unit.0:3>", "[eos]"]


def test_a_models_vocabulary_and_tasks(shown: Any, tmp_path: Path) -> None:
    from data.config import GrammarConfig
    from data.grammar.formats.spiritlm import SpiritLmBase
    from tests.data.format_records import SPACES, TOKENIZER, build_vocabulary

    config = GrammarConfig(
        templates={"asr": "[asr] {unit} | {text} [eos]"}, formats={"mix": SpiritLmBase(end="[eos]")}, groups={}
    )
    vocabulary = build_vocabulary(TOKENIZER, SPACES, config, [])
    infos = {name: vars(space) | {"tokenizer_id": "x"} for name, space in SPACES.items()}
    forms = {"mix": config.formats["mix"].model_dump(mode="json")}
    info = {**vocabulary.to_json(), "streams": infos, "templates": config.templates, "formats": forms, "groups": {}}
    TOKENIZER.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "antiphon.json").write_text(json.dumps(info))
    model = ["--model", str(tmp_path / "model")]
    assert shown("asr", GOLDEN, *model)["tokens"][:2] == ["[asr]", "<unit.0:78>"]
    assert shown("mix", GOLDEN, *model)["tokens"][-1] == "[eos]"
    assert shown("spiritlm_base", GOLDEN, *model) == shown("mix", GOLDEN, *model)
    assert "Ġhello" in shown("asr", GOLDEN, *model)["tokens"]
    assert main(["show", "anygpt", str(tmp_path / "record.json"), *model]) == 2  # its markers are not in this model


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_pretrained_models_folder_gives_its_texts_ids(shown: Any, tmp_path: Path, kind: str) -> None:
    """A tokenizer with merges and with tokens of its own for what the formats spell, and no word about audio."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    letters = {byte: index for index, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), (".", "Ġ"), (":", "Ġ")]
    vocabulary = letters | {"".join(pair): 256 + index for index, pair in enumerate(merges)} | {"<|im_end|>": 262}
    Qwen2Tokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path / "qwen")
    result = shown(kind, FULL, "--model", str(tmp_path / "qwen"))
    assert result["parsed"] == result["segments"]
    texts = [segment["content"] for segment in result["segments"] if segment["kind"] == "text"]
    assert "".join(texts).replace(" ", "") in ("", "helloyou", "helloyoufour", "four", "hello", "you")
    assert ("hello" in result["tokens"]) == ("hello" in "".join(texts))


def test_codes_that_make_no_whole_frame_are_told(shown: Any, caplog: pytest.LogCaptureFixture) -> None:
    shown("anygpt", {"caption": "slow", "streams": {"music": {"codes": [1, 2, 3, 4, 5], "num_codebooks": 4}}})
    assert "1 codes make no whole frame" in caplog.text


@pytest.mark.parametrize(
    ("grammar", "content", "words"),
    [
        ("spirit", "{}", "did you mean 'spiritlm_base'"),
        ("unit_lm", "{", "is not JSON"),
        ("unit_lm", "3", "a record is a JSON object"),
        ("unit_lm", '{"streams": {"unit": {"codes": [-1]}}}', "expected 0 to"),
        ("unit_lm", '{"streams": {"unit": {"frames": []}}}', "a record is {text"),
        ("unit_lm", "{}", "lacks one of ['unit']"),
        ("speechgpt_cross_modal", "[]", "empty list"),
        ("unit_lm", '{"streams": ["unit"]}', "a record is {text"),
        ("unit_lm", '{"streams": {"unit": {"codes": [1.5]}}}', "whole numbers"),
        ("unit_lm", '{"streams": {"unit": {"codes": [1, 2], "durations": [3]}}}', "its durations are those of 1"),
        ("unit_lm", '{"streams": {"unit": {"codes": [1], "durations": [99999]}}}', "a record is {text"),
        ("unit_lm", '{"streams": {"unit": {"codes": [1], "frame_rate_hz": "25"}}}', "numbers above 0"),
        ("unit_lm", '{"extra": 3, "streams": {"unit": [1]}}', "a record is {text"),
        ("text_lm", '{"text": 3}', "text is 3, expected a string"),
        ("spiritlm_base", '{"words": [["a", NaN, 1]], "streams": {"unit": [1]}}', "no time in seconds"),
        ("speechgpt_chain_of_modality", '{"text": "one"}', "response"),
    ],
)
def test_bad_input_exits_2_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], grammar: str, content: str, words: str
) -> None:
    (tmp_path / "r.json").write_text(content)
    assert main(["show", grammar, str(tmp_path / "r.json")]) == 2
    assert words in capsys.readouterr().err
    assert main(["show", "unit_lm", str(tmp_path / "absent.json")]) == 2


def test_the_names_and_the_built_in_instructions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["instructions", "text_to_music"]) == 0
    assert json.loads(capsys.readouterr().out) == list(built_in()["text_to_music"])
    done = subprocess.run([sys.executable, "-m", "data.grammar", "list"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(KINDS)


@pytest.mark.slow
def test_the_format_that_the_docs_add_is_found_shown_and_keeps_the_contract(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    guide = (root / "docs" / "sequences.md").read_text()
    source = guide.split("```python\n")[1].split("```")[0]
    for folder in ("data", "tests/data"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    (tmp_path / "data" / "grammar" / "formats" / "spoken_questions.py").write_text(source)
    (tmp_path / "record.json").write_text(json.dumps(FULL))

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "spoken_questions" in run("data.grammar", "list").split()
    shown = json.loads(run("data.grammar", "show", "spoken_questions", "record.json"))
    assert shown["tokens"][:2] == ["[Q]", "<unit.0:78>"]
    assert shown["parsed"] == shown["segments"]
    assert "passed" in run("pytest", "-q", "tests/data/test_grammar_contract.py", "-k", "spoken_questions")


def test_the_docs_show_what_the_command_shows(shown: Any) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "sequences.md").read_text()
    record = json.loads(guide.split("```json\n")[1].split("```")[0])
    written = guide.split("```json\n")[1].split("```")[2].strip().splitlines()
    texts = build_byte_words_tokenizer([])
    lines = []
    for kind in KINDS:
        result = shown(kind, record, "--seed", "151")
        words: list[str] = []
        for is_text, run in groupby(
            zip(result["ids"], result["tokens"], strict=True), lambda pair: pair[0] < len(texts)
        ):
            pairs = list(run)
            words += [decode_text(texts, [i for i, _ in pairs])] if is_text else [token for _, token in pairs]
        lines.append(f"{kind:<28} {' '.join(words)}")
    assert lines == written


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_record_of_nothing_is_said_to_lack_what_the_format_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    (tmp_path / "r.json").write_text('{"id": "bare"}')
    assert main(["show", kind, str(tmp_path / "r.json")]) == 2
    said = capsys.readouterr().err
    assert f"task {kind!r}: record 'bare' lacks " in said
    assert "something that the sequence shows" not in said
