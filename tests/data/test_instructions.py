"""The instruction sets, and drawing more of them from an endpoint."""

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from data.errors import InputError
from data.grammar.instructions import REQUESTS, SETS, built_in, draw_instructions
from tests.data.openai_endpoint import Endpoint, serving


@pytest.fixture
def endpoint() -> Iterator[tuple[type[Endpoint], str]]:
    with serving() as started:
        yield started


def test_there_are_as_many_as_published_and_all_differ() -> None:
    assert {name: len(lines) for name, lines in built_in().items()} == {
        "asr": 100,
        "tts": 100,
        "music_caption": 50,
        "text_to_music": 50,
    }
    everything = [line.lower() for lines in built_in().values() for line in lines]
    assert len(set(everything)) == 300
    assert not [line for line in everything if line[-1] in ".!?:;," or line != line.strip() or not line.isascii()]


def test_each_task_is_asked_for_in_its_own_words() -> None:
    """SpeechGPT's appendix prints the request for recognition under synthesis as well."""
    assert set(REQUESTS) == set(SETS)
    assert len(set(REQUESTS.values())) == 4
    assert "aloud" in REQUESTS["tts"]
    assert "aloud" not in REQUESTS["asr"]


def test_more_are_drawn_until_there_are_enough(endpoint: tuple[type[Endpoint], str]) -> None:
    handler, url = endpoint
    handler.answers = ['1. "Say it."\n- say it\n\n2) Speak this line', "Tell me\nRead that"]
    with httpx.Client() as client:
        drawn = draw_instructions(client, url, "some-model", "tts", 3, built_in()["tts"])
    assert drawn == ["Say it", "Tell me", "Read that"]  # one repeats, one is built in
    assert [request["path"] for request in handler.asked] == ["/v1/chat/completions"] * 2
    assert handler.asked[0]["model"] == "some-model"
    assert REQUESTS["tts"] in handler.asked[0]["messages"][0]["content"]
    assert "Say it" in handler.asked[1]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([500], "failed"),
        ([{"error": "no"}], "expected a text in choices"),
        ([{"choices": [{"message": {"content": None}}]}], "expected a text in choices"),
        ([{"choices": [{"message": {"content": [{"type": "text", "text": "Hear this"}]}}]}], "expected a text"),
        (["x" * 2**21], "not ended after"),
        (["Hear this\nSame", "same."], "gave 2 of 5 new"),
    ],
)
def test_a_bad_endpoint_is_an_input_error(endpoint: tuple[type[Endpoint], str], answers: Any, words: str) -> None:
    handler, url = endpoint
    handler.answers = answers
    with httpx.Client() as client, pytest.raises(InputError, match=words):
        draw_instructions(client, url, "m", "asr", 5)


def test_what_a_model_says_around_its_lines_is_no_instruction(endpoint: tuple[type[Endpoint], str]) -> None:
    handler, url = endpoint
    essay = " ".join(["word"] * 60)
    handler.answers = [
        f"<think>They want\ntwo.</think>Sure, here you are:\n```\n1. Say it\n{essay}\n---\n2. Speak\n```"
    ]
    with httpx.Client() as client:
        assert draw_instructions(client, url, "m", "tts", 2) == ["Say it", "Speak"]


def test_an_answer_that_drips_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.grammar.instructions.TIMEOUT_S", 0.0)
    drip = httpx.MockTransport(lambda request: httpx.Response(200, content=itertools.repeat(b" ")))
    with httpx.Client(transport=drip) as client, pytest.raises(InputError, match="not ended after"):
        draw_instructions(client, "http://drip/v1", "m", "asr", 1)


def test_an_unknown_set_and_a_dead_endpoint() -> None:
    with httpx.Client() as client:
        with pytest.raises(InputError, match="choose from asr"):
            draw_instructions(client, "http://127.0.0.1:1/v1", "m", "vision", 1)
        for url in ("http://127.0.0.1:1/v1", "http://127.0.0.1:port/v1", "127.0.0.1:1"):
            with pytest.raises(InputError, match="failed"):
                draw_instructions(client, url, "m", "asr", 1)
