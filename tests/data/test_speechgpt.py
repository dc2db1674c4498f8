"""SpeechGPT's sequences, and what its released data gets wrong."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.grammar.base import Grammar
from data.grammar.formats.speechgpt import SpeechGptChain, SpeechGptCrossModal
from data.grammar.instructions import built_in
from data.grammar.joined import JoinedRecord
from data.grammar.runs import expand_shown
from data.store import Record
from tests.data.format_records import TOKENIZER, build, check_contract, codes_of, seeded, spelt, texts

OWN = {"asr": ("listen", "listen well"), "tts": ("speak",)}
CROSS, CROSS_VOCABULARY = build(SpeechGptCrossModal(instructions=OWN))
BUILT_IN, _ = build(SpeechGptCrossModal(prefix="You are a model.", joins=False))
CHAIN, CHAIN_VOCABULARY = build(SpeechGptChain())
UNITS = np.array([661, 661, 5], np.int16)
RECORD = Record("r", text="one", streams={"unit": UNITS})
ASKED = Record("q", text="one", streams={"unit": UNITS}, response=Record("a", text="two", streams={"unit": UNITS[2:]}))

seeds = st.integers(0, 2**31)
singles = st.builds(
    Record, st.just("r"), text=texts, streams=st.fixed_dictionaries({"unit": codes_of(1000, max_size=6)})
)
pairs = st.builds(lambda asked, answer: replace(asked, response=answer), singles, singles)


def chain(form: str, **changes: Any) -> Grammar:
    return build(SpeechGptChain(weights={form: 1.0}, **changes))[0]


def words(text: str) -> list[str]:
    return TOKENIZER.tokenize(text)


@pytest.mark.parametrize("grammar", [CROSS, BUILT_IN])
@settings(max_examples=25, deadline=None)
@given(records=st.lists(singles, min_size=1, max_size=3), seed=seeds)
def test_turns_read_back(grammar: Grammar, records: list[Record], seed: int) -> None:
    segments = check_contract(grammar, JoinedRecord(tuple(records)), seed)
    shown = [segment for segment in segments if segment.kind != "instruction"]
    for index, record in enumerate(records):
        pair = {segment.kind: segment.content for segment in shown[2 * index : 2 * index + 2]}
        assert expand_shown(pair["unit"], record, "unit").tolist() == record.streams["unit"].tolist()
        assert pair["text"] == record.text.strip()


@settings(max_examples=40, deadline=None)
@given(record=pairs, seed=seeds)
def test_chains_read_back(record: Record, seed: int) -> None:
    check_contract(CHAIN, record, seed)


@pytest.mark.parametrize(
    "text",
    [
        "This is input: ",
        ". This is input:",
        "x . This is input:",
        ": a . This is input: b",
        ";",
        "one; two;",
        "[tq] <eoh> [SpeechGPT]",
        ".",
    ],
)
def test_text_that_looks_like_the_format_stays_text(text: str) -> None:
    record = Record("r", text=text, streams={"unit": UNITS})
    for seed in range(6):
        segments = check_contract(CROSS, record, seed)
        assert [s.content for s in segments if s.kind == "text"] == [text.strip()]
        chained = check_contract(CHAIN, replace(record, response=record), seed)
        assert {s.content for s in chained if s.kind == "text"} == {text.strip()}


def test_both_directions_by_hand() -> None:
    shown = {tuple(spelt(CROSS_VOCABULARY, CROSS.render(RECORD, seeded(seed)).ids)) for seed in range(40)}
    head, tail = ["[Human]", *words(":")], [*words("."), "[SpeechGPT]", *words(":")]
    given_ = words(". This is input:")
    spoken = ["<sosp>", "<unit.0:661>", "<unit.0:5>", "<eosp>"]
    assert shown == {
        (*head, *words("listen"), *given_, *spoken, "<eoh>", *tail, *words("one"), "<eos>", *words(".")),
        (*head, *words("listen well"), *given_, *spoken, "<eoh>", *tail, *words("one"), "<eos>", *words(".")),
        (*head, *words("speak"), *given_, *words("one"), "<eoh>", *tail, *spoken, "<eos>", *words(".")),
    }


def test_the_direction_is_drawn_with_its_probability() -> None:
    asr_first, _ = build(SpeechGptCrossModal(asr_probability=0.8, instructions=OWN))
    drawn = [asr_first.render(RECORD, seeded(seed)).segments[1].kind for seed in range(400)]
    assert 0.74 < drawn.count("unit") / 400 < 0.86


def test_every_built_in_instruction_is_drawn() -> None:
    asr, _ = build(SpeechGptCrossModal(asr_probability=1.0))
    rng = seeded(0)
    drawn = {asr.render(RECORD, rng).segments[0].content for _ in range(1500)}
    assert drawn == set(built_in()["asr"])


def test_an_instruction_that_cannot_be_read_back_is_refused() -> None:
    with pytest.raises(InputError, match="write it otherwise"):
        build(SpeechGptCrossModal(instructions={"tts": ("a . This is input: b",)}))


@pytest.mark.parametrize(
    ("form", "answered"),
    [
        ("s2s", ["[tq]", "one", ";", "[ta]", "two", ";", "[ua]", "<sosp>", "<unit.0:5>", "<eosp>", "<eoa>", "."]),
        ("s2t", ["[tq]", "one", ";", "[ta]", "two", "<eoa>", "."]),
        ("t2s", ["[ta]", "two", ";", "[ua]", "<sosp>", "<unit.0:5>", "<eosp>", "<eoa>", "."]),
        ("t2t", ["[ta]", "two", "<eoa>", "."]),
    ],
)
def test_the_four_forms_by_hand(form: str, answered: list[str]) -> None:
    """Each has its [tq] where something is heard and its <eoh>: the released data lack them."""
    ids = chain(form).render(ASKED).ids
    named = spelt(build(SpeechGptChain(weights={form: 1.0}))[1], ids)
    start = named.index("[SpeechGPT]")
    expected = [token for piece in answered for token in ([piece] if piece[0] in "[<" else words(piece))]
    assert named[start:] == ["[SpeechGPT]", *words(":"), *expected]
    assert named[:start].count("<eoh>") == 1
    assert named.count("[Human]") == 1


def test_every_marker_is_one_id_of_the_vocabulary() -> None:
    """The released trainers leave <eoa>, [tq], [ta] and [ua] to the text tokenizer."""
    for marker in ("<sosp>", "<eosp>", "[Human]", "[SpeechGPT]", "<eoh>", "<eoa>", "[tq]", "[ta]", "[ua]"):
        assert CHAIN_VOCABULARY.has_marker(marker)
    assert CROSS_VOCABULARY.has_marker("<eos>")
    assert set(spelt(CHAIN_VOCABULARY, chain("s2s").render(ASKED).ids)) >= {"[tq]", "[ta]", "[ua]", "<eoa>"}


def test_the_transcript_is_found_by_its_marker() -> None:
    segments = chain("s2s").render(ASKED).segments
    assert [(s.slot, s.content) for s in segments] == [
        ("unit", (661, 5)),
        ("text", "one"),
        ("response.text", "two"),
        ("response.unit", (5,)),
    ]


def test_only_forms_that_the_record_can_show_are_drawn() -> None:
    written = Record("q", text="one", response=Record("a", text="two"))
    kinds = {tuple(s.slot for s in CHAIN.render(written, seeded(seed)).segments) for seed in range(10)}
    assert kinds == {("text", "response.text")}
    all_forms = {tuple(s.slot for s in CHAIN.render(ASKED, seeded(seed)).segments) for seed in range(60)}
    assert len(all_forms) == 4
    assert not CHAIN.accepts(RECORD)
    with pytest.raises(InputError, match="response"):
        CHAIN.render(RECORD)


def test_the_loss_skips_the_prefix_only_or_all_but_the_answers() -> None:
    config = SpeechGptChain(weights={"t2t": 1.0}, prefix="You are one.")
    grammar, vocabulary = build(config)
    prefix = len(words("You are one."))
    rendered = grammar.render(ASKED)
    assert spelt(vocabulary, rendered.ids)[prefix] == "[Human]"
    assert rendered.loss_mask.tolist() == [False] * prefix + [True] * (len(rendered.ids) - prefix)
    answers = chain("t2t", prefix="You are one.", loss="responses").render(ASKED)
    asked = len(grammar.prompt(ASKED))
    assert answers.loss_mask.tolist() == [False] * asked + [True] * (len(answers.ids) - asked)


def test_responses_of_every_turn_are_trained_on() -> None:
    grammar, vocabulary = build(SpeechGptCrossModal(instructions=OWN, loss="responses", asr_probability=1.0))
    rendered = grammar.render(JoinedRecord((RECORD, RECORD)), seeded(1))
    named = np.array(spelt(vocabulary, rendered.ids))
    assert (named[rendered.loss_mask] == "<eos>").sum() == 2
    assert not rendered.loss_mask[named == "[SpeechGPT]"].any()


def test_a_prompt_is_what_a_rendering_begins_with() -> None:
    asr, _ = build(SpeechGptCrossModal(asr_probability=1.0, instructions={"asr": ("listen",)}))
    ids = asr.render(RECORD).ids
    prompt = asr.prompt(Record("q", streams=RECORD.streams))
    assert ids[: len(prompt)].tolist() == prompt.tolist()
    rest = ids[len(prompt) :]
    continuation = asr.continuation
    assert continuation.state_after(rest[: rest.tolist().index(_id(asr, "<eos>")) + 1]) == continuation.end


@pytest.mark.parametrize("form", ["s2s", "s2t", "t2s", "t2t"])
def test_the_continuation_of_all_forms_allows_each(form: str) -> None:
    """Forms that begin alike are followed together; ';' belongs to the text."""
    one = chain(form)
    answer = one.render(ASKED).ids[len(one.prompt(ASKED)) :]
    answer = answer[: answer.tolist().index(CHAIN_VOCABULARY.marker_id("<eoa>")) + 1]
    state = CHAIN.continuation.state_after(answer)
    assert state == CHAIN.continuation.end
    assert not CHAIN.continuation.allowed([])[CHAIN_VOCABULARY.marker_id("[ua]")]


def test_whatever_the_continuation_allows_can_be_read() -> None:
    prompt = CHAIN.prompt(ASKED)
    for seed in range(30):
        rng, state, written = seeded(seed), 0, []
        while state != CHAIN.continuation.end and len(written) < 40:
            written.append(int(rng.choice(np.flatnonzero(CHAIN.continuation.masks_SV[state]))))
            state = int(CHAIN.continuation.advance(state, written[-1]))
        CHAIN.parse(np.concatenate([prompt, written]).astype(np.int32))


def test_turns_of_a_dialogue_have_no_prefix_each() -> None:
    with pytest.raises(ValueError, match="set joins: false"):
        SpeechGptCrossModal(prefix="You are a model.")


def _id(grammar: Grammar, marker: str) -> int:
    return build(SpeechGptCrossModal())[1].marker_id(marker)
