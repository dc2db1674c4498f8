"""The engine on a tiny random model folder: every task, every odd input, the same answer in any company."""

import numpy as np
import pytest

from data.errors import InputError
from serve.engine import Engine
from serve.messages import Reply, Request


@pytest.fixture(scope="module")
def engine(tiny_model_folder: str) -> Engine:
    return Engine(tiny_model_folder, max_new_tokens=12)


def test_tasks_say_what_they_take_and_give(engine: Engine) -> None:
    assert engine.tasks["s2s"].inputs == ("unit", "speaker")
    assert engine.tasks["s2s"].outputs == ("text", "response.text", "response.unit")
    assert engine.tasks["text_to_music"].inputs == ("caption",)
    assert engine.voices == ("ann", "bob")


def test_replies_do_not_depend_on_company(engine: Engine, tone) -> None:
    requests = [
        Request("asr", wave=tone(0.5)),
        Request("tts", text="three four", voice="bob"),
        Request("s2s", wave=tone(1.0, frequency_hz=700.0), voice="ann"),
        Request("text_to_music", text="a flute"),
        Request("music_to_caption", wave=tone(0.3)),
        Request("t2t", text="five", temperature=1.0, seed=5),
    ]
    together = engine.generate(requests)
    for request, reply in zip(requests, together, strict=True):
        (alone,) = engine.generate([request])
        assert isinstance(reply, Reply)
        assert isinstance(alone, Reply)
        assert alone.segments == reply.segments
        assert alone.text == reply.text
        np.testing.assert_array_equal(
            alone.wave if alone.wave is not None else 0, reply.wave if reply.wave is not None else 0
        )


@pytest.mark.parametrize("samples", [0, 1, 7, 100])
def test_the_shortest_audio_is_transcribed(engine: Engine, samples: int) -> None:
    (text,) = engine.transcribe([np.zeros(samples, np.float32)])
    assert isinstance(text, str)


def test_empty_text_is_spoken(engine: Engine) -> None:
    ((wave, sample_rate),) = engine.speak([("", None)])
    assert wave.dtype == np.float32
    assert sample_rate == 16000


def test_a_chain_tells_question_and_answer(engine: Engine, tone) -> None:
    (reply,) = engine.run("s2s", [{"wave": tone(0.4)}])
    assert reply.question is not None
    assert reply.text is not None
    assert reply.wave is not None
    assert reply.generated_tokens == 12 or reply.finished


def test_one_bad_request_leaves_the_others_alone(engine: Engine, tone) -> None:
    asked = [
        Request("asr", wave=tone(0.2)),
        Request("sing", text="la"),
        Request("tts", text="x", voice="eve"),
        Request("tts", wave=tone(0.2)),
        Request("asr", text="hello"),
        Request("asr", wave=tone(40.0)),
    ]
    good, *bad = engine.generate(asked)
    assert isinstance(good, Reply)
    expected = ("unknown", "choose from", "takes no audio", "takes no text", "tokens long")
    for error, part in zip(bad, expected, strict=True):
        assert isinstance(error, InputError)
        assert part in str(error)
