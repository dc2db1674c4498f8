"""Named formats beside templates: configuration, vocabulary, streams, and the language models of one modality."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.config import GrammarConfig, PhaseMixture
from data.frozen import result_fields
from data.grammar.formats import FormatConfig
from data.grammar.formats.lm import TextLm, UnitLm
from data.grammar.formats.speechgpt import SpeechGptCrossModal
from data.grammar.formats.spiritlm import SpiritLmBase
from data.grammar.template import build_grammars
from data.store import Record, StreamInfo
from data.stream import TokenStream
from data.vocabulary import Vocabulary, build_vocabulary
from tests.data.format_records import SPACES, TOKENIZER, build, check_contract, codes_of, spelt, texts

ROOT = Path(__file__).resolve().parents[2]
RECORDS = st.builds(
    Record, st.just("r"), text=texts, streams=st.fixed_dictionaries({"unit": codes_of(1000, max_size=8)})
)


@pytest.mark.parametrize("config", [UnitLm(), TextLm()])
@settings(max_examples=25, deadline=None)
@given(record=RECORDS)
def test_language_models_are_their_templates(config: FormatConfig, record: Record) -> None:
    grammar, vocabulary = build(config)
    check_contract(grammar, record, 0)
    slot = "{unit}" if config.kind == "unit_lm" else "{text}"
    template = GrammarConfig(templates={"task": f"[lm] | {slot} [eos]"}, groups={})
    same = build_grammars(template, vocabulary, TOKENIZER)["task"]
    assert grammar.render(record).segments == same.render(record).segments
    assert [part.tolist() for part in grammar.tokens(record)] == [part.tolist() for part in same.tokens(record)]
    assert grammar.prompt(record).tolist() == same.prompt(record).tolist()
    assert grammar.continuation.masks_SV.tolist() == same.continuation.masks_SV.tolist()
    assert (grammar.draws, grammar.croppable) == (same.draws, same.croppable) == (False, True)


def test_units_may_be_deduplicated_when_shown() -> None:
    grammar, vocabulary = build(UnitLm(deduplicate=True, pattern="{unit}"))
    record = Record("r", streams={"unit": np.array([4, 4, 9, 4], np.int16)})
    assert spelt(vocabulary, grammar.render(record).ids) == ["<unit.0:4>", "<unit.0:9>", "<unit.0:4>"]


def test_a_recipe_names_templates_and_formats_side_by_side() -> None:
    config = GrammarConfig.model_validate(
        yaml.safe_load(
            """
            templates: {asr: "[asr] {unit} | [text] {text} [eos]"}
            formats:
              speech: {kind: spiritlm_base, speech_marker: "[SPEECH]", end: "[eos]"}
              text: {kind: text_lm}
            groups: {both: [asr, speech], text: [text]}
            """
        )
    )
    vocabulary = build_vocabulary(TOKENIZER, SPACES, config, ["amy"])
    assert vocabulary.markers == (
        "[pad]", "[eos]", "[SPEECH]", "[Text]", "[asr]", "[lm]", "[text]", "[voice:amy]",
    )  # fmt: skip
    grammars = build_grammars(config, vocabulary, TOKENIZER, SPACES)
    assert list(grammars) == list(config.tasks) == ["asr", "speech", "text"]
    assert grammars["speech"].name == "speech"
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"formats": {"a": {"kind": "spirit"}}, "groups": {}}, "spiritlm_base"),
        ({"formats": {"a": {"kind": "unit_lm", "markr": 1}}, "groups": {}}, "markr"),
        ({"templates": {"a": "[x] | {text} [eos]"}, "formats": {"a": {"kind": "text_lm"}}, "groups": {}}, "both have"),
        ({"formats": {"a": {"kind": "text_lm"}}, "groups": {"g": ["b"]}}, "choose from"),
        (
            {"formats": {"a": {"kind": "spiritlm_base", "text_words": [30, 10]}}, "groups": {}},
            "the fewest and the most",
        ),
        ({"formats": {"a": {"kind": "spiritlm_base", "speech_words": [0, 0]}}, "groups": {}}, "1 or more"),
    ],
)
def test_mistakes_are_named(tree: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GrammarConfig.model_validate(tree)


@pytest.mark.parametrize("name", ["demo", "tiny", "digits"])
def test_recipes_without_formats_keep_the_ids_of_their_runs(name: str) -> None:
    config = GrammarConfig(**yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["grammar"])
    assert set(result_fields(config)) == {"templates", "groups"}
    assert "formats" in result_fields(config.model_copy(update={"formats": {"x": TextLm()}}))


def test_a_stream_redraws_at_every_visit_and_is_the_same_for_any_workers() -> None:
    config = GrammarConfig(
        formats={"mix": SpiritLmBase(text_words=(1, 3), speech_words=(1, 3))}, groups={"mix": ("mix",)}
    )
    vocabulary = build_vocabulary(TOKENIZER, SPACES, config, [])
    grammars = build_grammars(config, vocabulary, TOKENIZER, SPACES)
    words = tuple((word, index * 0.2, index * 0.2 + 0.2) for index, word in enumerate(["one", "two"] * 5))
    record = {"text": "one two " * 5, "words": words}
    records = [Record(str(i), **record, streams={"unit": np.arange(50, dtype=np.int16) + i}) for i in range(3)]
    phase = PhaseMixture(name="p", weights={"mix": 1.0}, loss_weights={}, crop_probability=0.0, crop_end_fraction=0.0)
    streams = {"unit": StreamInfo(25.0, 1, 1000, "u")}
    make = lambda: TokenStream(records, grammars, config.groups, phase, 8, 128, 2, seed=3, streams=streams)  # noqa: E731
    one, other = make(), make()
    for step in (0, 3, 1):
        whole = one.rows(step).ids_BT
        parts = [other.rows(step, rank, 2).ids_BT for rank in range(2)]
        assert whole.tolist() == [parts[0][0].tolist(), parts[1][0].tolist()]
    lengths = {document.num_tokens for step in range(4) for row in one.plan(step) for document in row}
    assert len(lengths) > 1


def cross_modal_stream(records: list[Record], row_tokens: int, seed: int = 3, **fields: Any) -> tuple[Any, TokenStream]:
    config = GrammarConfig(
        templates={"lm": "[lm] | {text} [eos]"},
        formats={"cross": SpeechGptCrossModal(instructions={"asr": ("a",), "tts": ("b",)}, **fields)},
        groups={"cross": ("cross",), "lm": ("lm",)},
    )
    grammars = build_grammars(config, build_vocabulary(TOKENIZER, SPACES, config, []), TOKENIZER, SPACES)
    phase = PhaseMixture(name="p", weights={"cross": 0.8, "lm": 0.2})
    return grammars["cross"], TokenStream(records, grammars, config.groups, phase, 8, row_tokens, 2, seed)


SPOKEN = [Record(f"{i:02d}", text="one two", streams={"unit": np.arange(3 + i, dtype=np.int16)}) for i in range(20)]


@pytest.mark.parametrize("loss", ["all", "responses"])
def test_pairs_of_a_row_are_turns_of_one_dialogue(loss: str) -> None:
    grammar, stream = cross_modal_stream(SPOKEN, 300, loss=loss)
    for step in range(4):
        batch = stream.rows(step)
        for row, documents in enumerate(stream.plan(step)):
            turns = [document for document in documents if document.source == "cross"]
            assert [document.source for document in documents] == sorted((d.source for d in documents), reverse=True)
            start = sum(document.num_tokens for document in documents[: -len(turns)])
            stop = start + sum(document.num_tokens for document in turns)
            assert batch.position_ids_BT[row, start:stop].tolist() == list(range(stop - start))
            assert batch.sources[row] == (*["lm"] * (len(documents) - len(turns)), "cross")
            texts = [s.content for s in grammar.parse(batch.ids_BT[row, start:stop]) if s.kind == "text"]
            assert texts == ["one two"] * len(turns)
            untrained = (batch.labels_BT[row, start:stop] == -100).sum()
            assert untrained == 1 if loss == "all" else untrained > len(turns)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_dialogues_are_the_same_for_any_workers_and_after_a_resume(workers: int) -> None:
    _, whole = cross_modal_stream(SPOKEN, 300)
    state = json.loads(json.dumps(whole.state(3)))
    ranks = [cross_modal_stream(SPOKEN, 300)[1] for _ in range(workers)]
    for rank, stream in enumerate(ranks):
        stream.resume(state)
        for step in (3, 4, 6):
            ours, theirs = stream.rows(step, rank, workers), whole.rows(step)
            for name in ("ids_BT", "labels_BT", "position_ids_BT", "weights_BT"):
                mine = getattr(theirs, name)[rank::workers]
                assert (getattr(ours, name)[: len(mine)] == mine).all()


def test_a_stream_of_dialogues_does_not_depend_on_the_order_of_the_store_and_wastes_little() -> None:
    streams = [cross_modal_stream(order, 512)[1] for order in (SPOKEN, SPOKEN[::-1])]
    assert [streams[0].batch_hash(step) for step in range(4)] == [streams[1].batch_hash(step) for step in range(4)]
    used = sum(document.num_tokens for step in range(8) for row in streams[0].plan(step) for document in row)
    assert used / (8 * 2 * 512) > 0.98
    assert all(row.got == pytest.approx(row.asked, abs=0.05) for row in streams[0].mixture_table(8))
    apart = cross_modal_stream(SPOKEN, 512, joins=False)[1]
    assert len(apart.rows(0).sources[0]) > 5 > len([s for s in streams[0].rows(0).sources[0] if s == "cross"]) == 1
