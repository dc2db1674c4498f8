"""The HTTP side of the endpoint: a plain FastAPI app over any backend. It knows neither Ray nor torch."""

import asyncio
import base64
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from data.grammar.base import Segment
from data.timing import samples_to_seconds
from serve.admission import ENVELOPE_BYTES, Gate, check_text, decode_base64, decode_upload, read_form, read_json
from serve.audio_formats import CONTENT_TYPES, encode_audio
from serve.config import ServeConfig
from serve.errors import ApiError, from_validation, install_handlers
from serve.messages import ModelInfo, Reply, Request
from serve.schema import (
    ChatRequest,
    SpeechRequest,
    TranscriptionRequest,
    chat_chunks,
    chat_reply,
    models_reply,
    voice_name,
)
from serve.transcripts import duration_usage, server_sent_events, subtitle, verbose

EVENT_STREAM = "text/event-stream"


class Backend(Protocol):
    """What answers. `generate` raises InputError for what the model cannot do."""

    model_ids: list[str]

    async def generate(self, model: str, request: Request) -> Reply: ...

    async def describe(self, model: str) -> ModelInfo: ...

    async def ready(self) -> bool: ...


@dataclass
class Service:
    """What every route shares."""

    backend: Backend
    config: ServeConfig
    gate: Gate

    async def info(self, model: str) -> ModelInfo:
        """What `model` can do. Raises ApiError 404."""
        if model not in self.backend.model_ids:
            message = f"model {model!r} is not served here: choose from {self.backend.model_ids}"
            raise ApiError(404, message, "model_not_found", "model")
        return await self.backend.describe(model)

    async def generate(self, model: str, request: Request) -> Reply:
        """An answer within the time allowed. Raises ApiError 504, which clients should not retry."""
        try:
            return await asyncio.wait_for(self.backend.generate(model, request), self.config.request_timeout_s)
        except TimeoutError:
            message = f"no answer within {self.config.request_timeout_s:g} s"
            raise ApiError(504, message, "timeout", headers={"x-should-retry": "false"}) from None


def build_http_app(backend: Backend, config: ServeConfig, gate: Gate | None = None) -> FastAPI:
    """The app. Every answer carries x-request-id; every error is OpenAI-shaped."""
    app = FastAPI(title="Antiphon", docs_url=None, redoc_url=None, openapi_url=None)
    install_handlers(app)
    service = Service(backend, config, gate or Gate(config.max_queued_requests))
    created = int(time.time())

    @app.middleware("http")
    async def tag(request: HttpRequest, call_next: Callable[[HttpRequest], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"
        return response

    @app.get("/")
    async def page() -> Response:
        return HTMLResponse(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))

    @app.get("/health")
    async def health() -> Response:
        if not await backend.ready():
            raise ApiError(503, "no replica is ready yet", "not_ready")
        return JSONResponse({"status": "ok", "in_flight": service.gate.in_flight})

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse(models_reply(backend.model_ids, created))

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> Response:
        info = await service.info(model)
        tasks = {name: {"inputs": task.inputs, "outputs": task.outputs} for name, task in info.tasks.items()}
        listed = models_reply([model], created)["data"][0]
        return JSONResponse({**listed, "antiphon": {"tasks": tasks, "voices": info.voices}})

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: HttpRequest) -> Response:
        async with service.gate.admitted():
            return await transcribe(service, request)

    @app.post("/v1/audio/speech")
    async def speech(request: HttpRequest) -> Response:
        async with service.gate.admitted():
            return await speak(service, request)

    @app.post("/v1/chat/completions")
    async def chat(request: HttpRequest) -> Response:
        async with service.gate.admitted():
            return await complete(service, request)

    return app


async def transcribe(service: Service, request: HttpRequest) -> Response:
    """POST /v1/audio/transcriptions."""
    config = service.config
    form = await read_form(request, config.max_upload_bytes + ENVELOPE_BYTES)
    try:
        fields = {key: value for key, value in form.items() if isinstance(value, str)}
        spellings = ("timestamp_granularities[]", "timestamp_granularities")
        granularities = [value for key in spellings for value in form.getlist(key)]
        asked = TranscriptionRequest.model_validate({**fields, "timestamp_granularities": granularities})
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise ApiError(400, "the form has no file", "missing_required_parameter", "file")
        content = await file.read()
    except ValidationError as error:
        raise from_validation(error) from None
    finally:
        await form.close()
    _check_upload(content, config, "file")
    info = await service.info(asked.model)
    wave = await decode_upload(content, info.sample_rate, config.max_audio_s, "file")
    reply = await service.generate(
        asked.model,
        Request("asr", wave=wave, sample_rate=info.sample_rate, temperature=asked.temperature),
    )
    return _transcript_response(asked, reply, samples_to_seconds(len(wave), info.sample_rate))


def _transcript_response(asked: TranscriptionRequest, reply: Reply, duration_s: float) -> Response:
    text, kind = reply.text or "", asked.response_format
    if asked.stream:
        done = {"type": "transcript.text.done", "text": text, "usage": duration_usage(duration_s)}
        events: list[dict[str, Any]] = [{"type": "transcript.text.delta", "delta": text}, done]
        return Response(server_sent_events(events, done=False), media_type=EVENT_STREAM)
    if kind == "json":
        return JSONResponse({"text": text, "usage": duration_usage(duration_s)})
    if kind == "verbose_json":
        return JSONResponse(verbose(reply, duration_s, asked.language, asked.temperature))
    return PlainTextResponse(text + "\n" if kind == "text" else subtitle(text, duration_s, kind))


async def speak(service: Service, request: HttpRequest) -> Response:
    """POST /v1/audio/speech."""
    asked = await read_json(request, SpeechRequest, ENVELOPE_BYTES)
    if asked.speed != 1:
        raise ApiError(400, "speed other than 1 is not offered", "unsupported_value", "speed")
    if asked.instructions:
        raise ApiError(400, "instructions are not offered: choose a voice", "unsupported_value", "instructions")
    await service.info(asked.model)
    text = check_text(asked.input, "input")
    reply = await service.generate(asked.model, Request("tts", text=text, voice=voice_name(asked.voice)))
    audio = await asyncio.to_thread(encode_audio, _wave(reply), reply.sample_rate, asked.response_format)
    return Response(audio, headers={"content-type": CONTENT_TYPES[asked.response_format]})


async def complete(service: Service, request: HttpRequest) -> Response:
    """POST /v1/chat/completions: the last user message is answered; a template has one turn."""
    config = service.config
    asked = await read_json(request, ChatRequest, config.max_upload_bytes * 4 // 3 + ENVELOPE_BYTES)
    info = await service.info(asked.model)
    text, audio = _last_user_message(asked)
    wave = None
    if audio is not None:
        _check_upload(audio, config, "messages")
        wave = await decode_upload(audio, info.sample_rate, config.max_audio_s, "messages")
    task = asked.task or _default_task(wave is not None, "audio" in asked.modalities)
    reply = await service.generate(
        asked.model,
        Request(
            task,
            text=check_text(text, "messages"),
            wave=wave,
            sample_rate=info.sample_rate,
            voice=voice_name(asked.audio.voice),
            max_new_tokens=asked.max_completion_tokens or asked.max_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=asked.seed or 0,
        ),
    )
    total = reply.prompt_tokens + reply.generated_tokens
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.generated_tokens, "total_tokens": total}
    message = await _chat_message(asked, task, reply)
    body = chat_reply(asked.model, message, "stop" if reply.finished else "length", usage)
    if asked.stream:
        return Response(server_sent_events(chat_chunks(body), done=True), media_type=EVENT_STREAM)
    return JSONResponse(body)


async def _chat_message(asked: ChatRequest, task: str, reply: Reply) -> dict[str, Any]:
    audio = None
    if reply.wave is not None:
        encoded = await asyncio.to_thread(encode_audio, reply.wave, reply.sample_rate, asked.audio.format)
        audio = {
            "id": f"audio_{uuid.uuid4().hex}",
            "data": base64.b64encode(encoded).decode(),
            "expires_at": int(time.time()),  # nothing is kept: it cannot be referred to later
            "transcript": reply.text or "",
        }
    segments = [_segment(segment) for segment in reply.segments]
    extension = {"task": task, "question": reply.question, "segments": segments}
    return {
        "role": "assistant",
        "content": reply.text,
        "refusal": None,
        **({"audio": audio} if audio else {}),
        "antiphon": extension,
    }


def _segment(segment: Segment) -> dict[str, Any]:
    content = segment.content if isinstance(segment.content, str) else list(segment.content)
    return {"kind": segment.kind, "slot": segment.slot, "content": content, "tokens": segment.end - segment.start}


def _last_user_message(asked: ChatRequest) -> tuple[str, bytes | None]:
    """Text and audio of the last user message."""
    message = next((message for message in reversed(asked.messages) if message.role == "user"), None)
    if message is None:
        raise ApiError(400, "messages has none of role user", "invalid_value", "messages")
    if not isinstance(message.content, list):
        return message.content or "", None
    texts = [part.text or "" for part in message.content if part.type == "text"]
    sounds = [part.input_audio for part in message.content if part.input_audio is not None]
    if len(sounds) > 1:
        raise ApiError(400, "one input_audio part is taken, more were given", "invalid_value", "messages")
    audio = decode_base64(sounds[0].data, "messages.input_audio.data") if sounds else None
    return " ".join(texts), audio


def _default_task(has_audio: bool, wants_audio: bool) -> str:
    return ("s" if has_audio else "t") + "2" + ("s" if wants_audio else "t")


def _check_upload(content: bytes, config: ServeConfig, param: str) -> None:
    if len(content) > config.max_upload_bytes:
        message = f"the audio has {len(content)} bytes, at most {config.max_upload_bytes} are taken"
        raise ApiError(413, message, "request_too_large", param)


def _wave(reply: Reply) -> np.ndarray:
    return reply.wave if reply.wave is not None else np.zeros(0, np.float32)
