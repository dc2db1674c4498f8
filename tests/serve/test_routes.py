"""The HTTP side over an engine in this process, read by the official client where it can be."""

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile

from data.audio import wav_bytes
from data.errors import InputError
from serve.admission import Gate
from serve.config import ServeConfig
from serve.engine import Engine
from serve.messages import ModelInfo, Reply, Request
from serve.routes import build_http_app


class InProcess:
    """A backend without replicas; it can be held up."""

    def __init__(self, engine: Engine) -> None:
        self.model_ids = ["tiny"]
        self.engine = engine
        self.open = asyncio.Event()
        self.open.set()
        self.is_ready = True

    async def generate(self, model: str, request: Request) -> Reply:
        await self.open.wait()
        (reply,) = self.engine.generate([request])
        if isinstance(reply, InputError):
            raise reply
        return reply

    async def describe(self, model: str) -> ModelInfo:
        return self.engine.info

    async def ready(self) -> bool:
        return self.is_ready


@pytest.fixture(scope="module")
def engine(tiny_model_folder: str) -> Engine:
    return Engine(tiny_model_folder, max_new_tokens=10)


def talk(engine: Engine, conversation: Callable[..., Awaitable[Any]], **settings: Any) -> Any:
    """Run `conversation(http, backend, gate)` against a fresh app."""

    async def run() -> Any:
        backend, config = InProcess(engine), ServeConfig(**settings)
        gate = Gate(config.max_queued_requests)
        transport = httpx.ASGITransport(build_http_app(backend, config, gate), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            return await conversation(http, backend, gate)

    return asyncio.run(run())


def official(engine: Engine, use: Callable[[openai.AsyncOpenAI], Awaitable[Any]], **settings: Any) -> Any:
    """Run `use(client)` with the official client against a fresh app."""

    async def conversation(http: httpx.AsyncClient, backend: InProcess, gate: Gate) -> Any:
        client = openai.AsyncOpenAI(api_key="none", base_url="http://here/v1", http_client=http, max_retries=0)
        return await use(client)

    return talk(engine, conversation, **settings)


def upload(tone: Any, duration_s: float = 0.5) -> tuple[str, bytes, str]:
    return ("a.wav", wav_bytes(tone(duration_s), 16000), "audio/wav")


def test_transcripts_come_in_every_format(engine: Engine, tone) -> None:
    async def use(client: openai.AsyncOpenAI) -> list[Any]:
        kinds = ("json", "text", "verbose_json", "srt", "vtt")
        ask = client.audio.transcriptions.create
        return [await ask(file=upload(tone), model="tiny", response_format=kind) for kind in kinds]

    plain, text, verbose, srt, vtt = official(engine, use)
    assert plain.usage.seconds == 0.5
    assert text == plain.text + "\n"
    assert verbose.duration == 0.5
    assert verbose.text == plain.text
    assert srt == "" or "00:00:00,000 --> 00:00:00,500" in srt
    assert vtt.startswith("WEBVTT")


def test_a_transcript_streams(engine: Engine, tone) -> None:
    async def use(client: openai.AsyncOpenAI) -> list[Any]:
        stream = await client.audio.transcriptions.create(file=upload(tone), model="tiny", stream=True)
        return [event async for event in stream]

    events = official(engine, use)
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[0].delta == events[1].text


@pytest.mark.parametrize(
    ("audio_format", "container"), [("wav", "WAV"), ("flac", "FLAC"), ("mp3", "MP3"), ("opus", "OGG")]
)
def test_speech_comes_in_every_format(engine: Engine, audio_format: Any, container: str) -> None:
    async def use(client: openai.AsyncOpenAI) -> bytes:
        create = client.audio.speech.create
        reply = await create(model="tiny", input="three", voice="ann", response_format=audio_format)
        return reply.content

    sound = soundfile.SoundFile(io.BytesIO(official(engine, use)))
    assert sound.format == container
    assert sound.samplerate == 16000


def test_pcm_has_24_khz_whatever_the_model_has(engine: Engine) -> None:
    async def use(client: openai.AsyncOpenAI) -> list[bytes]:
        ask = client.audio.speech.create
        kinds = ("pcm", "wav")
        replies = [await ask(model="tiny", input="three", voice="ann", response_format=kind) for kind in kinds]
        return [reply.content for reply in replies]

    pcm, wav = official(engine, use)
    samples = soundfile.info(io.BytesIO(wav)).frames
    assert len(pcm) / 2 == pytest.approx(samples * 1.5, abs=2)


def test_a_chat_answers_in_text_and_audio(engine: Engine, tone) -> None:
    data = base64.b64encode(wav_bytes(tone(0.5), 16000)).decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}

    async def use(client: openai.AsyncOpenAI) -> Any:
        return await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": [part]}],  # type: ignore[list-item, misc, dict-item]
            modalities=["text", "audio"],
            audio={"voice": "bob", "format": "wav"},
        )

    reply = official(engine, use)
    message = reply.choices[0].message
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert message.audio.transcript == message.content
    assert base64.b64decode(message.audio.data).startswith(b"RIFF")
    assert message.antiphon["task"] == "s2s"
    assert isinstance(message.antiphon["question"], str)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_chat_streams(engine: Engine) -> None:
    async def use(client: openai.AsyncOpenAI) -> list[Any]:
        ask = client.chat.completions.create
        whole = await ask(model="tiny", messages=[{"role": "user", "content": "three"}])
        stream = await ask(model="tiny", messages=[{"role": "user", "content": "three"}], stream=True)
        return [whole, [chunk async for chunk in stream]]

    whole, chunks = official(engine, use)
    assert chunks[0].choices[0].delta.content == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_task_may_be_named(engine: Engine) -> None:
    async def use(client: openai.AsyncOpenAI) -> Any:
        messages: Any = [{"role": "user", "content": "a slow flute"}]
        return await client.chat.completions.create(
            model="tiny", messages=messages, extra_body={"task": "text_to_music"}
        )

    message = official(engine, use).choices[0].message
    assert message.content is None
    assert message.audio is not None


def test_models_are_listed_and_described(engine: Engine) -> None:
    async def use(client: openai.AsyncOpenAI) -> Any:
        return [model.id async for model in client.models.list()], await client.models.retrieve("tiny")

    ids, model = official(engine, use)
    assert ids == ["tiny"]
    assert model.antiphon["voices"] == ["ann", "bob"]
    assert model.antiphon["tasks"]["asr"]["inputs"] == ["unit"]


def test_the_official_client_gets_its_typed_errors(engine: Engine) -> None:
    async def use(client: openai.AsyncOpenAI) -> None:
        speak = client.audio.speech.create
        with pytest.raises(openai.NotFoundError, match="choose from") as missing:
            await speak(model="huge", input="x", voice="ann")
        assert missing.value.request_id
        with pytest.raises(openai.BadRequestError, match="ann"):
            await speak(model="tiny", input="x", voice="eve")
        with pytest.raises(openai.BadRequestError, match="4096"):
            await speak(model="tiny", input="x" * 4097, voice="ann")
        with pytest.raises(openai.BadRequestError, match="not_audio"):
            await client.audio.transcriptions.create(file=("a.wav", b"RIFFjunk"), model="tiny")
        with pytest.raises(openai.NotFoundError):
            await client.images.generate(prompt="x")

    official(engine, use)


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/v1/audio/speech", {}, 405),
        ("GET", "/nowhere", {}, 404),
        ("POST", "/v1/audio/speech", {"content": b"{"}, 400),
        ("POST", "/v1/audio/speech", {"json": {"model": "tiny"}}, 400),
        ("POST", "/v1/audio/speech", {"json": {"model": "tiny", "input": "x", "speed": 2}}, 400),
        ("POST", "/v1/audio/speech", {"json": {"model": "tiny", "input": "x", "response_format": "aac"}}, 400),
        ("POST", "/v1/audio/transcriptions", {"data": {"model": "tiny"}}, 400),
        ("POST", "/v1/audio/transcriptions", {"files": {"file": b""}, "data": {"model": "tiny"}}, 400),
        ("POST", "/v1/chat/completions", {"json": {"model": "tiny", "messages": []}}, 400),
    ],
)
def test_every_error_has_openais_shape(
    engine: Engine, method: str, path: str, content: dict[str, Any], status: int
) -> None:
    async def conversation(http: httpx.AsyncClient, *_: Any) -> httpx.Response:
        return await http.request(method, path, **content)

    response = talk(engine, conversation)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")


def test_an_upload_is_refused_while_it_arrives(engine: Engine) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while True:
            sent += 65536
            yield b"\0" * 65536

    async def conversation(http: httpx.AsyncClient, *_: Any) -> httpx.Response:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        return await http.post("/v1/audio/transcriptions", content=endless(), headers=headers)

    response = talk(engine, conversation, max_upload_bytes=100_000)
    assert response.status_code == 413
    assert sent < 2_000_000


def test_long_audio_is_refused(engine: Engine, tone) -> None:
    async def conversation(http: httpx.AsyncClient, *_: Any) -> httpx.Response:
        files = {"file": upload(tone, 2.0)}
        return await http.post("/v1/audio/transcriptions", files=files, data={"model": "tiny"})

    response = talk(engine, conversation, max_audio_s=1.0)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_long"


def test_audio_without_samples_has_an_empty_transcript_or_some_text(engine: Engine) -> None:
    async def use(client: openai.AsyncOpenAI) -> Any:
        empty = ("a.wav", wav_bytes(np.zeros(0, np.float32), 16000))
        return await client.audio.transcriptions.create(file=empty, model="tiny")

    assert isinstance(official(engine, use).text, str)


def test_a_full_queue_says_when_to_come_back(engine: Engine) -> None:
    async def conversation(http: httpx.AsyncClient, backend: InProcess, gate: Gate) -> list[httpx.Response]:
        backend.open.clear()
        body = {"model": "tiny", "input": "x", "voice": "ann", "response_format": "wav"}
        inside = [asyncio.create_task(http.post("/v1/audio/speech", json=body)) for _ in range(2)]
        while gate.in_flight < 2:
            await asyncio.sleep(0)
        refused = await http.post("/v1/audio/speech", json=body)
        backend.open.set()
        return [refused, *await asyncio.gather(*inside)]

    refused, *answered = talk(engine, conversation, max_queued_requests=2)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert [response.status_code for response in answered] == [200, 200]


def test_a_closing_gate_answers_those_inside_and_refuses_the_rest(engine: Engine) -> None:
    async def conversation(http: httpx.AsyncClient, backend: InProcess, gate: Gate) -> Any:
        backend.open.clear()
        body = {"model": "tiny", "input": "x", "voice": "ann", "response_format": "wav"}
        inside = asyncio.create_task(http.post("/v1/audio/speech", json=body))
        while not gate.in_flight:
            await asyncio.sleep(0)
        closing = asyncio.create_task(gate.close(timeout_s=30))
        await asyncio.sleep(0)
        refused = await http.post("/v1/audio/speech", json=body)
        backend.open.set()
        return refused.status_code, (await inside).status_code, await closing

    assert talk(engine, conversation) == (503, 200, 0)


def test_a_slow_answer_is_given_up(engine: Engine) -> None:
    async def conversation(http: httpx.AsyncClient, backend: InProcess, gate: Gate) -> httpx.Response:
        backend.open.clear()
        return await http.post("/v1/audio/speech", json={"model": "tiny", "input": "x"})

    response = talk(engine, conversation, request_timeout_s=0.05)
    assert response.status_code == 504
    assert response.headers["x-should-retry"] == "false"


def test_health_waits_for_a_replica(engine: Engine) -> None:
    async def conversation(http: httpx.AsyncClient, backend: InProcess, gate: Gate) -> list[int]:
        before = (await http.get("/health")).status_code
        backend.is_ready = False
        return [before, (await http.get("/health")).status_code]

    assert talk(engine, conversation) == [200, 503]


def test_the_page_fetches_nothing_from_elsewhere(engine: Engine) -> None:
    async def conversation(http: httpx.AsyncClient, *_: Any) -> httpx.Response:
        return await http.get("/")

    page = talk(engine, conversation).text
    assert "<title>Antiphon</title>" in page
    assert "http" not in page.replace('http-equiv="', "")
    assert "innerHTML" not in page
