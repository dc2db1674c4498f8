"""A client of the endpoint. Any number of threads may share one."""

import base64
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
import numpy as np

from data.audio import decode_audio

MAX_ANSWER_S = 600.0


class EndpointError(RuntimeError):
    """The endpoint did not answer as asked. `status` is the HTTP status, None where nothing came back."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class RefusedError(EndpointError):
    """The request itself was refused (4xx but 429): asking again will not help."""


class OverloadedError(EndpointError):
    """The endpoint is full or not ready (429, 503), and stayed so through every retry."""


@dataclass(frozen=True)
class ChatReply:
    """An answer. `text` is the answer's, `question` the transcript of the question in a chain, `segments` everything
    generated ({kind, slot, content, tokens}); `wave` float32 (N,) at `sample_rate`, None where there is none."""

    text: str
    question: str | None
    wave: np.ndarray | None
    sample_rate: int
    segments: list[dict[str, Any]]


class Client:
    """Methods raise EndpointError: RefusedError, OverloadedError, or itself for failures and time-outs."""

    def __init__(self, url: str, timeout_s: float = 120.0, sample_rate: int = 16000, retries: int = 8) -> None:
        """`sample_rate` (Hz) is that of the waves handed out."""
        self._sample_rate = sample_rate
        self._retries = retries
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=timeout_s, limits=limits, trust_env=False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def models(self) -> list[str]:
        """Ids of the models served."""
        return [model["id"] for model in self._ask("GET", "/v1/models").json()["data"]]

    def transcribe(self, wav: bytes, model: str) -> str:
        """The text of an audio file."""
        files = {"file": ("audio.wav", wav, "audio/wav")}
        return self._ask("POST", "/v1/audio/transcriptions", files=files, data={"model": model}).json()["text"]

    def speech(self, text: str, voice: str | None, model: str) -> tuple[np.ndarray, int]:
        """Spoken text: float32 (N,) and its sample rate."""
        body = {"model": model, "input": text, "voice": voice or "default", "response_format": "wav"}
        return self._decode(self._ask("POST", "/v1/audio/speech", json=body).content), self._sample_rate

    def chat(
        self,
        task: str,
        model: str,
        text: str | None = None,
        audio: bytes | None = None,
        voice: str | None = None,
    ) -> ChatReply:
        """The answer of a task (s2s, s2t, t2s, t2t, text_to_music, music_to_caption, …) to text or a wav file."""
        parts: list[dict[str, Any]] = []
        if text is not None:
            parts.append({"type": "text", "text": text})
        if audio is not None:
            data = base64.b64encode(audio).decode()
            parts.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
        body = {
            "model": model,
            "task": task,
            "messages": [{"role": "user", "content": parts}],
            "modalities": ["text", "audio"],
            "audio": {"voice": voice or "default", "format": "wav"},
        }
        message = self._ask("POST", "/v1/chat/completions", json=body).json()["choices"][0]["message"]
        sound = message.get("audio")
        wave = self._decode(base64.b64decode(sound["data"])) if sound else None
        extension = message["antiphon"]
        text_answer = message["content"] or ""
        return ChatReply(text_answer, extension["question"], wave, self._sample_rate, extension["segments"])

    def _decode(self, wav: bytes) -> np.ndarray:
        """Samples of a WAV answer, which may hold none (44 bytes of header)."""
        if len(wav) <= 44:
            return np.zeros(0, np.float32)
        return decode_audio(wav, self._sample_rate, max_duration_s=MAX_ANSWER_S)

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        """A successful answer. Overload is retried after the time that the server names."""
        for attempt in range(self._retries + 1):
            try:
                response = self._http.request(method, path, **content)
            except httpx.HTTPError as error:
                raise EndpointError(f"{method} {path}: {type(error).__name__}: {error}") from error
            if response.status_code not in (429, 503) or attempt == self._retries:
                break
            time.sleep(min(float(response.headers.get("retry-after", 1.0)), 10.0))
        if response.is_success:
            return response
        raise _error_of(response, f"{method} {path}")


def _error_of(response: httpx.Response, what: str) -> EndpointError:
    try:
        error = response.json()["error"]
        message, code = error["message"], error["code"]
    except (ValueError, KeyError, TypeError):
        message, code = response.text[:200], None
    status = response.status_code
    kind = OverloadedError if status in (429, 503) else RefusedError if status < 500 else EndpointError
    return kind(f"{what}: {status}: {message}", status, code)
