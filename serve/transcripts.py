"""A transcript in the formats of the transcriptions endpoint."""

import json
import zlib
from typing import Any

from serve.messages import Reply


def subtitle(text: str, duration_s: float, kind: str) -> str:
    """The transcript as one cue of SubRip (srt) or WebVTT (vtt); without text there is no cue."""
    mark = "," if kind == "srt" else "."
    head, number = ("", "1\n") if kind == "srt" else ("WEBVTT\n\n", "")
    if not text:
        return head
    return f"{head}{number}{_clock(0, mark)} --> {_clock(duration_s, mark)}\n{text}\n\n"


def verbose(reply: Reply, duration_s: float, language: str | None, temperature: float) -> dict[str, Any]:
    """verbose_json: the whole recording is one segment. What the model does not tell (no_speech_prob) is null."""
    text = reply.text or ""
    encoded = text.encode()
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": duration_s,
        "text": text,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": reply.logprob / max(1, reply.generated_tokens),
        "compression_ratio": len(encoded) / max(1, len(zlib.compress(encoded))),
        "no_speech_prob": None,
    }
    return {
        "task": "transcribe",
        "language": language or "unknown",
        "duration": duration_s,
        "text": text,
        "segments": [segment] if text else [],
        "usage": duration_usage(duration_s),
    }


def duration_usage(duration_s: float) -> dict[str, Any]:
    """What was used, as OpenAI counts transcription."""
    return {"type": "duration", "seconds": duration_s}


def server_sent_events(events: list[dict[str, Any]], done: bool) -> str:
    """The body of an event stream; chat streams end in [DONE]."""
    lines = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    return lines + ("data: [DONE]\n\n" if done else "")


def _clock(time_s: float, mark: str) -> str:
    total_ms = round(time_s * 1000)
    minutes, seconds = divmod(total_ms // 1000, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{mark}{total_ms % 1000:03d}"
