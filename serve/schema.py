"""The wire format: OpenAI's requests and replies as its official client sends and reads them, plus `antiphon`."""

import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SpeechFormat = Literal["mp3", "opus", "flac", "wav", "pcm"]
ChatFormat = Literal["wav", "mp3", "flac", "opus", "pcm16"]


class Wire(BaseModel):
    """A request body. Unknown fields are ignored, as OpenAI's own server lets old clients meet new ones."""

    model_config = ConfigDict(extra="ignore")


class VoiceId(Wire):
    """A voice given as an object."""

    id: str


class SpeechRequest(Wire):
    """POST /v1/audio/speech. `voice` "default" is the model's first voice."""

    model: str
    input: str
    voice: str | VoiceId = "default"
    response_format: SpeechFormat = "mp3"
    speed: float = 1.0
    instructions: str | None = None
    stream_format: Literal["audio"] = "audio"


class TranscriptionRequest(Wire):
    """The fields of POST /v1/audio/transcriptions beside the file."""

    model: str
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: float = Field(0.0, ge=0, le=2)
    language: str | None = None
    stream: bool = False
    timestamp_granularities: list[Literal["segment"]] = []


class InputAudio(Wire):
    """Audio inside a message, base64."""

    data: str
    format: str = "wav"


class Part(Wire):
    """One part of a message's content."""

    type: Literal["text", "input_audio"]
    text: str | None = None
    input_audio: InputAudio | None = None


class Message(Wire):
    """One message of a conversation."""

    role: str
    content: str | list[Part] | None = None


class AudioOptions(Wire):
    """How the answer is spoken."""

    voice: str | VoiceId = "default"
    format: ChatFormat = "wav"


class ChatRequest(Wire):
    """POST /v1/chat/completions. `task` is our extension: the grammar to use, else chosen from what is given and
    asked for."""

    model: str
    messages: list[Message] = Field(min_length=1)
    modalities: list[Literal["text", "audio"]] = ["text"]
    audio: AudioOptions = AudioOptions()
    task: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int | None = Field(None, ge=0)
    n: Literal[1] = 1
    stream: bool = False


def voice_name(voice: str | VoiceId) -> str | None:
    """The voice asked for; None for the default one."""
    name = voice if isinstance(voice, str) else voice.id
    return None if name in ("default", "") else name


def models_reply(model_ids: list[str], created: int) -> dict[str, Any]:
    """GET /v1/models."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": "antiphon"} for name in model_ids]
    return {"object": "list", "data": data}


def chat_reply(model: str, message: dict[str, Any], finish_reason: str, usage: dict[str, Any]) -> dict[str, Any]:
    """POST /v1/chat/completions."""
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
        "usage": usage,
    }


def chat_chunks(reply: dict[str, Any]) -> list[dict[str, Any]]:
    """A whole reply as the two chunks of a stream: the content, then the reason it ended."""
    choice = reply["choices"][0]
    head = {key: reply[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    first = {"index": 0, "delta": choice["message"], "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    return [{**head, "choices": [first]}, {**head, "choices": [last], "usage": reply["usage"]}]
