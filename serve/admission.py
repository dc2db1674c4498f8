"""What is let in: bodies bounded while they arrive, audio bounded while it is decoded, a bounded queue."""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request as HttpRequest

from data.audio import AudioError, decode_audio
from serve.errors import ApiError, from_validation

MAX_TEXT_CHARS = 4096
# Around the audio itself: form boundaries, other fields, a chat's messages.
ENVELOPE_BYTES = 256 * 1024
Body = TypeVar("Body", bound=BaseModel)


class Gate:
    """Counts requests in flight and refuses those beyond a bound; closed, it refuses all."""

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._in_flight = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests admitted and not yet answered."""
        return self._in_flight

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Hold a place. Raises ApiError 429 when all are taken, 503 when the gate is closed."""
        if self._closed:
            raise ApiError(503, "this server is shutting down: ask again elsewhere or later", "shutting_down")
        if self._in_flight >= self._max_requests:
            raise ApiError(429, f"{self._in_flight} requests are waiting already: try again shortly", "queue_full")
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def close(self, timeout_s: float) -> int:
        """Admit no more, wait until those inside are answered. Returns how many still were not after `timeout_s`."""
        self._closed = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return self._in_flight
        return 0


async def read_json(request: HttpRequest, kind: type[Body], max_bytes: int) -> Body:
    """The body as `kind`. Raises ApiError 413 as soon as more than `max_bytes` came, 400 when it does not fit."""
    body = b"".join([chunk async for chunk in _bounded(request, max_bytes)])
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from None


async def read_form(request: HttpRequest, max_bytes: int) -> FormData:
    """A multipart body with one file. Raises ApiError 413 as soon as more than `max_bytes` came, 400 when it is
    none."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "send multipart/form-data with the fields file and model", "invalid_content_type")
    stream = _bounded(request, max_bytes)
    try:
        return await MultiPartParser(request.headers, stream, max_files=1, max_fields=32).parse()
    except MultiPartException as error:
        raise ApiError(400, f"the form cannot be read: {error.message}", "invalid_form") from None
    except KeyError:
        raise ApiError(400, "the form has no boundary in its content type", "invalid_form") from None


async def _bounded(request: HttpRequest, max_bytes: int) -> AsyncGenerator[bytes, None]:
    refusal = ApiError(413, f"the request is larger than {max_bytes} bytes", "request_too_large")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise refusal
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise refusal
        yield chunk


async def decode_upload(content: bytes, sample_rate: int, max_audio_s: float, param: str) -> np.ndarray:
    """Mono float32 samples of an encoded file; a file without samples gives none.

    Raises ApiError 400 for what is no audio, 413 for more than `max_audio_s`.
    """
    if not content:
        raise ApiError(400, "the audio file has no bytes", "invalid_audio", param)
    try:
        return await asyncio.to_thread(decode_audio, content, sample_rate, max_duration_s=max_audio_s)
    except AudioError as error:
        if error.reason == "empty":
            return np.zeros(0, np.float32)
        status = 413 if error.reason in ("too_long", "too_large") else 400
        raise ApiError(status, f"the audio cannot be used: {error}", error.reason, param) from None


def decode_base64(data: str, param: str) -> bytes:
    """The bytes of a base64 string. Raises ApiError 400."""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"{param} is not base64", "invalid_base64", param) from None


def check_text(text: str, param: str) -> str:
    """`text`. Raises ApiError 400 where it is too long."""
    if len(text) > MAX_TEXT_CHARS:
        message = f"{param} has {len(text)} characters, at most {MAX_TEXT_CHARS} are taken"
        raise ApiError(400, message, "string_above_max_length", param)
    return text
