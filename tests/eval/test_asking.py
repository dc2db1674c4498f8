import threading

import numpy as np

from data.audio import decode_audio, wav_bytes
from eval.asking import SILENCE_S, ask_all, file_name
from eval.tasks.base import Request


class FakeEndpoint:
    """Answers with what it was asked; fails on a text of "fail"."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent = {}

    def transcribe(self, wav, model):
        return f"{model} {len(decode_audio(wav, 8000))}"

    def speak(self, text, voice, model):
        if text == "fail":
            raise TimeoutError("no answer in 3 s\nmore")
        return wav_bytes(np.full(160, 0.1), 16000)

    def chat(self, task, model, text, wav, voice):
        with self.lock:
            self.sent[task] = (text, wav, voice)
        return task, None


def _ask(corpus, requests, endpoint=None):
    saved = {}

    def save(key, wav):
        saved[key] = wav
        return f"audio/{file_name(key)}"

    answers = ask_all(endpoint or FakeEndpoint(), requests, corpus, save=save, sample_rate=8000, concurrency=3)
    return answers, saved


def test_audio_is_sent_at_the_asked_rate_and_replies_are_kept_by_key(corpus):
    requests = [Request("a/s0", "transcribe", audio="s0"), Request("t/s0", "speak", text="hi", voice="v")]
    answers, saved = _ask(corpus, requests)
    assert answers["a/s0"].text == "final 1600"
    assert answers["t/s0"].audio == f"audio/{file_name('t/s0')}"
    assert list(saved) == ["t/s0"]


def test_a_failing_request_is_an_answer_with_an_error_and_stops_nothing(corpus):
    requests = [Request(f"t/{n}", "speak", text="fail" if n == 1 else "hi") for n in range(4)]
    answers, _ = _ask(corpus, [*requests, Request("a/gone", "transcribe", audio="gone")])
    assert answers["t/1"].error == "TimeoutError: no answer in 3 s"
    assert answers["a/gone"].error.startswith("KeyError")
    assert [answers[f"t/{n}"].error for n in (0, 2, 3)] == [None] * 3


def test_silence_is_short_and_digital_and_an_empty_text_stays_empty(corpus):
    endpoint = FakeEndpoint()
    _ask(
        corpus,
        [Request("s", "chat", task="s2t", audio="silence"), Request("t", "chat", task="t2t", text="")],
        endpoint,
    )
    wave = decode_audio(endpoint.sent["s2t"][1], 8000)
    assert len(wave) == round(SILENCE_S * 8000)
    assert not wave.any()
    assert endpoint.sent["t2t"] == ("", None, None)


def test_file_names_are_safe_and_distinct():
    names = {file_name(key) for key in ("tts/a/b", "tts/a-b", "tts/a b", "../../etc", "x" * 300)}
    assert len(names) == 5
    assert all("/" not in name and len(name) < 120 for name in names)
