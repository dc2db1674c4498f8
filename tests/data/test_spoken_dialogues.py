"""Speech quadruples and dialogues out of text."""

import importlib.util
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from data.corpus.espeak_speaker import EspeakSpeaker
from data.corpus.spoken_dialogues import Dialogue, Sound, Speaker, Turn, build_dialogues, build_quadruples
from data.grammar.formats.anygpt_chat import AnyGptChat, Party
from data.grammar.formats.speechgpt import SpeechGptChain
from data.store import Record, StreamInfo, TokenStore, write_shard
from tests.data.format_records import build, check_contract

PARTIES = (Speaker("ann", ("amy", "eve")), Speaker("bob", ("joe",)), Speaker("model", ("zoe",), answers=True))


class Letters:
    """Speaks a text as the numbers of its letters; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, texts: Sequence[tuple[str, str]]) -> list[Sound]:
        self.asked += texts
        return [
            Sound({} if text == "hush" else {"unit": np.array([ord(c) % 1000 for c in text], np.int16)}, len(text) / 25)
            for text, _ in texts
        ]


def play(captions: Sequence[str]) -> list[Sound]:
    return [Sound({"music": np.arange(8, dtype=np.int16)}, 2 / 25) for _ in captions]


def test_pairs_become_quadruples_that_a_chain_shows() -> None:
    speak = Letters()
    built = build_quadruples([("what is it", "a cat"), ("who", "me")], speak, ["amy", "joe"], "zoe")
    assert not built.dropped
    questions = [record for record in built.records if record.extra["turn"] == 0]
    assert [(q.text, q.response.text) for q in questions] == [("what is it", "a cat"), ("who", "me")]
    assert [text for text, _ in speak.asked] == ["what is it", "a cat", "who", "me"]
    assert {voice for text, voice in speak.asked if text in ("a cat", "me")} == {"zoe"}
    assert {voice for text, voice in speak.asked if text in ("what is it", "who")} <= {"amy", "joe"}
    chain, _ = build(SpeechGptChain(weights={"s2s": 1.0}))
    segments = check_contract(chain, questions[0], 0)
    assert [segment.slot for segment in segments] == ["unit", "text", "response.text", "response.unit"]
    assert questions[0].duration_s == 10 / 25


def test_long_empty_and_silent_responses_are_dropped_and_said_to_be() -> None:
    pairs = [("one", "w " * 34), ("two", "w " * 35), ("three", " "), ("four", "hush")]
    built = build_quadruples(pairs, Letters(), ["amy"], "zoe")
    assert [record.text for record in built.records if record.extra["turn"] == 0] == ["one"]
    assert [row["reason"] for row in built.dropped] == ["too_long", "empty_text", "silent"]
    assert "35 words" in built.dropped[0]["detail"]


def test_quadruples_survive_the_store(tmp_path: object) -> None:
    built = build_quadruples([("what", "that")], Letters(), ["amy"], "zoe")
    write_shard(f"{tmp_path}/0.parquet", built.records, {"unit": StreamInfo(25.0, 1, 1000, "u")})
    first = TokenStore.open(str(tmp_path)).records[0]
    assert (first.text, first.response.text, first.response.response) == ("what", "that", None)


def test_dialogues_of_three_parties_are_spoken_written_and_played() -> None:
    turns = [
        Turn("ann", "hello", spoken=True),
        Turn("bob", "hi there", spoken=False),
        Turn("model", "here you are", caption="slow piano"),
        Turn("ann", "thanks", spoken=True),
        Turn("model", "bye", spoken=True),
    ]
    speak = Letters()
    built = build_dialogues([Dialogue(turns)], PARTIES, speak, play, seed=3)
    assert [sorted(record.streams) for record in built.records] == [["unit"], [], ["music"], ["unit"], ["unit"]]
    assert [record.extra["party"] for record in built.records] == ["ann", "bob", "model", "ann", "model"]
    voices = dict(speak.asked)
    assert voices["hello"] == voices["thanks"]  # a party keeps its voice
    assert voices["bye"] == "zoe"
    parties = tuple(
        Party(name=p.name, marker=f"[{p.name}]", end="<eom>" if p.answers else "<eoh>", answers=p.answers)
        for p in PARTIES
    )
    chat, _ = build(AnyGptChat(parties=parties))
    shown = {segment.slot: segment.content for segment in check_contract(chat, built.records[0], 0)}
    assert shown["response.response.music"] == tuple(range(8))
    assert shown["response.response.response.text"] == "thanks"
    assert not any(chat.accepts(record) for record in built.records[1:])


def test_spoken_turns_are_drawn_by_seed_and_dialogue_alone() -> None:
    written = [Dialogue([Turn("ann", f"question {i}"), Turn("model", f"answer {i}")]) for i in range(60)]

    def spoken(dialogues: list[Dialogue], seed: int) -> dict[str, bool]:
        built = build_dialogues(dialogues, PARTIES, Letters(), seed=seed, spoken_probability=0.7)
        return {record.text or "": bool(record.streams) for record in built.records}

    first = spoken(written, 1)
    assert 60 < sum(first.values()) < 108
    assert spoken(list(reversed(written)), 1) == first != spoken(written, 2)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([Turn("ann", "alone")], "too_short"),
        ([Turn("ann", "a"), Turn("carl", "b")], "unknown_party"),
        ([Turn("ann", "a"), Turn("model", "b", caption="piano")], "no_music"),
    ],
)
def test_dialogues_that_cannot_be_made(turns: list[Turn], reason: str) -> None:
    built = build_dialogues([Dialogue(turns)], PARTIES, Letters())
    assert not built.records
    assert [row["reason"] for row in built.dropped] == [reason]


def test_the_same_pair_twice_gives_one_quadruple() -> None:
    built = build_quadruples([("who", "me"), ("who", "me"), ("who", "you")], Letters(), ["amy"], "zoe")
    assert len({record.id for record in built.records}) == len(built.records) == 4
    assert [row["reason"] for row in built.dropped] == ["duplicate"]


def test_a_speaker_that_loses_a_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="one each is expected"):
        build_quadruples([("a", "b")], lambda texts: [], ["amy"], "zoe")


@pytest.mark.skipif(importlib.util.find_spec("espeakng_loader") is None, reason="espeak-ng is not installed")
def test_the_built_in_speaker_speaks_and_encodes() -> None:
    def encode(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.arange(len(wave) // 640, dtype=np.int16)[:, None] % 50 for wave in waves]

    speaker = EspeakSpeaker({"unit": SimpleNamespace(sample_rate=16000, encode=encode)})
    built = build_quadruples([("what is two plus two", "four")], speaker, ["en-US", "en-US+f2"], "en-US")
    question: Record = built.records[0]
    assert len(question.streams["unit"]) > len(question.response.streams["unit"]) > 5
    assert abs(len(question.streams["unit"]) / 25 - question.duration_s) < 0.1
