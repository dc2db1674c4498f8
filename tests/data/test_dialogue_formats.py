"""AnyGPT's dialogues, in-context synthesis, chunks and preferences."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.grammar.formats.anygpt_chat import AnyGptChat, Party
from data.grammar.formats.chunked import Chunked
from data.grammar.formats.preference import Preference
from data.grammar.formats.tts_icl import TtsIcl
from data.store import Record, TokenStore
from tests.data.format_records import TOKENIZER, build, check_contract, codes_of, seeded, spelt, spoken_records, texts

CHAT, CHAT_VOCABULARY = build(AnyGptChat())
ICL, ICL_VOCABULARY = build(TtsIcl(prompt_s=0.5))
CHUNKED, CHUNKED_VOCABULARY = build(Chunked(text_tokens=2, audio_tokens=3))
MUSICAL, _ = build(Chunked(text_tokens=3, audio_tokens=8, audio="music", text="caption"))
PREFERENCE, PREFERENCE_VOCABULARY = build(Preference())

seeds = st.integers(0, 2**31)
spoken = st.builds(
    Record, st.just("s"), text=texts, streams=st.fixed_dictionaries({"unit": codes_of(1000, max_size=5)})
)
written = st.builds(Record, st.just("w"), text=texts)
frames = st.lists(st.tuples(*[st.integers(0, 63)] * 4), min_size=1, max_size=4)
musical = st.builds(
    Record,
    st.just("m"),
    text=st.none() | texts,
    caption=texts,
    streams=st.fixed_dictionaries({"music": frames.map(lambda rows: np.array(rows, np.int16).reshape(-1))}),
)
turns = st.lists(spoken | written | musical, min_size=2, max_size=5)


def words(text: str) -> list[str]:
    return TOKENIZER.tokenize(text)


def linked(records: list[Record]) -> Record:
    last: Record | None = None
    for record in reversed(records):
        last = replace(record, response=last)
    assert last is not None
    return last


def units(*codes: int) -> dict[str, np.ndarray]:
    return {"unit": np.array(codes, np.int16)}


@settings(max_examples=40, deadline=None)
@given(records=turns, seed=seeds)
def test_dialogues_rebuild_every_turn_that_is_shown(records: list[Record], seed: int) -> None:
    shown: dict[str, Any] = {}
    for segment in check_contract(CHAT, linked(records), seed):
        assert shown.setdefault(segment.slot, segment.content) == segment.content
    for index, record in enumerate(records):
        prefix = "response." * index
        for stream, codes in record.streams.items():
            assert shown[prefix + stream] == tuple(codes.tolist())
        unheard = index % 2 == 0 and "unit" in record.streams and index == len(records) - 1
        if record.text is not None and not unheard:
            assert shown[f"{prefix}text"] == record.text.strip()


def test_a_spoken_question_is_written_down_before_it_is_answered() -> None:
    dialogue = linked([Record("q", text="one", streams=units(5)), Record("a", text="two", streams=units(7, 7))])
    rendered = CHAT.render(dialogue)
    asked = ["[Human]", *words(":"), "<sosp>", "<unit.0:5>", "<eosp>", "<eoh>", "[AnyGPT]", *words(":")]
    answered = [
        "<-Ins->",
        *words("one"),
        "<-Res->",
        *words("two"),
        "<sosp>",
        "<unit.0:7>",
        "<unit.0:7>",
        "<eosp>",
        "<eom>",
    ]
    assert spelt(CHAT_VOCABULARY, rendered.ids) == [*asked, *answered]
    assert rendered.loss_mask.tolist() == [False] * len(asked) + [True] * len(answered)
    prompt = CHAT.prompt(dialogue)
    assert spelt(CHAT_VOCABULARY, prompt) == asked
    assert CHAT.continuation.state_after(rendered.ids[len(prompt) :]) == CHAT.continuation.end


def test_turns_may_be_written_or_carry_music() -> None:
    clip = {"music": np.array([1, 2, 3, 4], np.int16)}
    ids = CHAT.render(linked([Record("q", text="one"), Record("a", text="two", streams=clip)])).ids
    codes = [f"<music.{k}:{k + 1}>" for k in range(4)]
    assert spelt(CHAT_VOCABULARY, ids) == [
        "[Human]", *words(":"), *words("one"), "<eoh>",
        "[AnyGPT]", *words(":"), *words("two"), "<somu>", *codes, "<eomu>", "<eom>",
    ]  # fmt: skip


def test_three_parties_are_a_configuration() -> None:
    parties = (
        Party(name="ann", marker="[Ann]", end="<eoh>"),
        Party(name="bob", marker="[Bob]", end="<eoh>"),
        Party(name="model", marker="[Model]", end="<eom>", answers=True),
    )
    grammar, vocabulary = build(AnyGptChat(parties=parties))
    said = [Record("1", text="one"), Record("2", text="two"), Record("3", text="three"), Record("4", text="one")]
    check_contract(grammar, linked(said), 0)
    named = spelt(vocabulary, grammar.render(linked(said)).ids)
    assert [name for name in named if name[0] == "[" and name[-1] == "]"] == ["[Ann]", "[Bob]", "[Model]", "[Ann]"]
    by_name = linked([replace(said[0], extra={"party": "bob"}), replace(said[1], extra={"party": "model"})])
    assert [n for n in spelt(vocabulary, grammar.render(by_name).ids) if n[0] == "["] == ["[Bob]", "[Model]"]
    assert not grammar.accepts(linked([said[0], replace(said[1], extra={"party": "stranger"})]))


def test_a_dialogue_begins_at_its_first_turn() -> None:
    dialogue = linked([Record("1", text="one"), Record("2", text="two", extra={"turn": 1}), Record("3", text="one")])
    assert CHAT.accepts(dialogue)
    assert not CHAT.accepts(dialogue.response)
    assert not CHAT.accepts(Record("1", text="one"))
    with pytest.raises(InputError, match="human"):
        CHAT.render(Record("1", text="one"))


def test_bad_parties_are_explained() -> None:
    with pytest.raises(ValueError, match="answers: true"):
        AnyGptChat(parties=(Party(name="a", marker="[A]", end="<e>"), Party(name="b", marker="[B]", end="<e>")))
    with pytest.raises(ValueError, match="at least two"):
        AnyGptChat(parties=(Party(name="a", marker="[A]", end="<e>", answers=True),))


@settings(max_examples=40, deadline=None)
@given(record=spoken_records(shortest_s=0.05, stored=False), seed=seeds)
def test_prompt_and_target_are_together_the_record(record: Record, seed: int) -> None:
    if not ICL.accepts(record):
        assert len(record.words) == 1
        return
    shown = {segment.slot: segment.content for segment in check_contract(ICL, record, seed)}
    assert [*shown["unit"], *shown["response.unit"]] == record.streams["unit"].tolist()
    together = f"{shown['text']} {shown['response.text']}"
    assert together in (record.text, " ".join(word for word, _, _ in record.words))


def test_a_prompt_is_no_longer_than_asked_but_one_word() -> None:
    times = tuple((word, float(index), index + 0.5) for index, word in enumerate(["one", "two", "three", "one"]))
    record = Record("r", text="one two three one", words=times, streams={"unit": np.arange(100, dtype=np.int16)})
    two_s, _ = build(TtsIcl(prompt_s=2.0))
    assert {two_s.render(record, seeded(seed)).segments[0].content for seed in range(20)} == {"one", "one two"}
    assert {ICL.render(record, seeded(seed)).segments[0].content for seed in range(20)} == {"one"}
    assert ICL.render(record).segments[1].content == tuple(range(25))


def test_a_response_may_be_the_target() -> None:
    pairs, vocabulary = build(TtsIcl(pairs="response"))
    record = Record("p", text="one", streams=units(1), response=Record("t", text="two", streams=units(2)))
    check_contract(pairs, record, 0)
    rendered = pairs.render(record)
    assert spelt(vocabulary, rendered.ids) == [
        "[tts]", "Ġone", "[speech]", "<unit.0:1>", "[text]", "Ġtwo", "[speech]", "<unit.0:2>", "[eos]",
    ]  # fmt: skip
    assert rendered.loss_mask.tolist() == [False] * 6 + [True] * 3
    asked = replace(record, response=Record("t", text="two"))
    assert pairs.prompt(asked).tolist() == rendered.ids[:6].tolist() == ICL.prompt(asked).tolist()


@pytest.mark.parametrize("grammar", [CHUNKED, MUSICAL])
@settings(max_examples=40, deadline=None)
@given(one=spoken, other=musical)
def test_chunks_are_together_text_and_audio(grammar: Any, one: Record, other: Record) -> None:
    record = one if grammar is CHUNKED else other
    segments = check_contract(grammar, record, 0)
    text = record.text if grammar is CHUNKED else record.caption
    assert "".join(s.content for s in segments if s.kind == "text") == text.strip()
    for stream, codes in record.streams.items():
        assert [code for s in segments if s.kind == stream for code in s.content] == codes.tolist()
    targets = grammar.render(record).ids[len(grammar.prompt(record)) :]
    assert grammar.continuation.state_after(targets) == grammar.continuation.end


@pytest.mark.parametrize(
    ("text", "codes", "kinds"),
    [
        ("one two three one", 4, "ttuuuttue"),
        ("one", 7, "tuuuuuuue"),
        ("one two three one two", 2, "ttuuttte"),
        ("one two three one two", 3, "ttuuuttte"),
    ],
)
def test_chunks_by_hand(text: str, codes: int, kinds: str) -> None:
    record = Record("r", text=text, streams={"unit": np.arange(codes, dtype=np.int16)})
    named = spelt(CHUNKED_VOCABULARY, CHUNKED.render(record).ids)
    assert named[0] == "<|assistant|>"
    assert "".join({"Ġ": "t", "<": "u", "[": "e"}[name[0]] for name in named[1:]) == kinds


def test_a_character_that_chunks_cut_in_two_is_not_lost() -> None:
    record = Record("r", text="é漢字 漢", streams=units(1, 2, 3, 4, 5, 6, 7, 8, 9))
    segments = check_contract(CHUNKED, record, 0)
    assert len([s for s in segments if s.kind == "text"]) > 3
    assert "".join(s.content for s in segments if s.kind == "text") == record.text


def test_chunk_settings_that_cannot_be_read_back() -> None:
    with pytest.raises(InputError, match="give a multiple"):
        build(Chunked(audio="music", audio_tokens=6))
    with pytest.raises(InputError, match="end with a marker"):
        build(Chunked(prompt="<|user|> {text}"))


@settings(max_examples=30, deadline=None)
@given(prompt=written, chosen=spoken, rejected=spoken)
def test_preferences_read_back(prompt: Record, chosen: Record, rejected: Record) -> None:
    record = replace(prompt, response=chosen, rejected=rejected)
    shown = {segment.slot: segment.content for segment in check_contract(PREFERENCE, record, 0)}
    assert shown == {
        "text": prompt.text.strip(),
        "response.unit": tuple(chosen.streams["unit"].tolist()),
        "rejected.unit": tuple(rejected.streams["unit"].tolist()),
    }


def test_a_preference_is_two_sequences_of_one_prompt() -> None:
    answers = {"response": Record("c", streams=units(1, 2)), "rejected": Record("r", streams=units(3))}
    record = replace(Record("p", text="one"), **answers)
    rendered = PREFERENCE.render(record)
    named = ["[Text]", "Ġone", "[Speech]", "<unit.0:1>", "<unit.0:2>", "[eos]", "[rejected]", "<unit.0:3>", "[eos]"]
    assert spelt(PREFERENCE_VOCABULARY, rendered.ids) == named
    assert rendered.loss_mask.tolist() == [False] * 3 + [True] * 3 + [False] * 3  # nobody learns what was rejected
    chosen, rejected = PREFERENCE.pair(record)
    assert chosen.ids.tolist() == rendered.ids[:6].tolist()
    assert rejected.ids.tolist() == [*rendered.ids[:3], *rendered.ids[7:]]
    assert chosen.loss_mask.tolist() == [False] * 3 + [True] * 3
    assert PREFERENCE.prompt(Record("p", text="one")).tolist() == rendered.ids[:3].tolist()
    assert PREFERENCE.parse(chosen.ids) == chosen.segments  # what a model generates
    assert not PREFERENCE.accepts(Record("p", text="one", response=answers["response"]))


def test_a_store_links_rejected_answers() -> None:
    rows = [Record("p", extra={"response": "c", "rejected": "r"}), Record("c", text="yes"), Record("r", text="no")]
    first = TokenStore(rows, {}).records[0]
    assert (first.response.text, first.rejected.text) == ("yes", "no")
