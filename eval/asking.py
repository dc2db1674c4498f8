"""Asks an endpoint every request of the benchmark tasks, several at a time, and keeps what came back."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from data import storage
from data.audio import AudioError, load_audio, wav_bytes
from data.timing import seconds_to_samples
from eval.corpus import EvalCorpus
from eval.tasks.base import Answer, Request
from eval.tasks.chain import SILENCE

log = logging.getLogger("antiphon")

SILENCE_S = 0.3
LOG_EVERY = 100


class Endpoint(Protocol):
    """What the benchmark asks of an endpoint; serve/client.py speaks it over HTTP. Anything may raise."""

    def transcribe(self, wav: bytes, model: str) -> str:
        """The words of a WAV file."""

    def speak(self, text: str, voice: str | None, model: str) -> bytes:
        """A WAV file that speaks `text`."""

    def chat(
        self, task: str, model: str, text: str | None, wav: bytes | None, voice: str | None
    ) -> tuple[str | None, bytes | None]:
        """Text and WAV file of the reply, either where there is one."""


def ask_all(
    endpoint: Endpoint,
    requests: Iterable[Request],
    corpus: EvalCorpus,
    *,
    save: Callable[[str, bytes], str],
    sample_rate: int,
    concurrency: int,
) -> dict[str, Answer]:
    """Answers by key. A request that fails becomes an answer with an error; none is asked twice.

    `save(key, wav)` keeps received audio and returns its path inside the run folder; audio is sent at `sample_rate`.
    """
    asked = list(requests)
    answers: dict[str, Answer] = {}

    def one(request: Request) -> Answer:
        try:
            return _ask(endpoint, request, corpus, save, sample_rate)
        except Exception as error:  # whatever goes wrong with one sample is that sample's failure, and is counted
            log.warning("%s failed: %s", request.key, error)
            return Answer(error=describe(error))

    with ThreadPoolExecutor(concurrency) as pool:
        for number, (request, answer) in enumerate(zip(asked, pool.map(one, asked), strict=True), start=1):
            answers[request.key] = answer
            if number % LOG_EVERY == 0 or number == len(asked):
                log.info("run_eval: %d of %d requests answered", number, len(asked))
    return answers


def _ask(
    endpoint: Endpoint, request: Request, corpus: EvalCorpus, save: Callable[[str, bytes], str], sample_rate: int
) -> Answer:
    wav = None if request.audio is None else wav_bytes(_sound(request.audio, corpus, sample_rate), sample_rate)
    if request.form == "transcribe":
        return Answer(text=endpoint.transcribe(wav or b"", request.model))
    if request.form == "speak":
        spoken = endpoint.speak(request.text or "", request.voice, request.model)
        return Answer(audio=save(request.key, spoken))
    text, audio = endpoint.chat(request.task or "", request.model, request.text, wav, request.voice)
    return Answer(text=text, audio=None if audio is None else save(request.key, audio))


def _sound(audio: str, corpus: EvalCorpus, sample_rate: int) -> np.ndarray:
    """The samples (N,) that a request sends."""
    if audio == SILENCE:
        return np.zeros(seconds_to_samples(SILENCE_S, sample_rate), np.float32)
    utterance = corpus.utterances[audio]
    return load_audio(corpus.audio(audio), sample_rate, utterance.offset, utterance.duration)


def describe(error: Exception) -> str:
    """What samples.jsonl says about a failure: its kind, and the message's first line."""
    kind = error.reason if isinstance(error, AudioError) else type(error).__name__
    return f"{kind}: {str(error).splitlines()[0] if str(error) else ''}"[:200]


def file_name(key: str) -> str:
    """A file name for a key: readable, free of separators, and different for different keys."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", key)[:80]
    return f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.wav"


def save_audio(folder: str, key: str, wav: bytes) -> str:
    """Keep a WAV file under the folder's audio/; its path inside the folder."""
    path = f"audio/{file_name(key)}"
    storage.write_bytes(storage.join(folder, path), wav)
    return path
