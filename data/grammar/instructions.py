"""Descriptions of tasks in plain words: four built-in sets, and more from any OpenAI-compatible endpoint.

Instructions carry no full stop at the end: formats put their own words after them.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import InputError

if TYPE_CHECKING:
    import httpx

SETS = ("asr", "tts", "music_caption", "text_to_music")
# What an endpoint is asked for. Each task has a request of its own: SpeechGPT's appendix prints the one for
# recognition twice.
REQUESTS = {
    "asr": "Someone hands over a recording of speech and wants its exact words in writing (speech recognition).",
    "tts": "Someone hands over a written sentence and wants to hear it read aloud (speech synthesis).",
    "music_caption": "Someone hands over a piece of music and wants it described in words.",
    "text_to_music": "Someone hands over a description of music and wants to hear such music.",
}
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.):])\s*")
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
MAX_EMPTY_ROUNDS = 3
TIMEOUT_S = 120.0
MAX_CHARACTERS = 200  # of one short sentence
MAX_ANSWER_BYTES = 2**20


@cache
def built_in() -> Mapping[str, tuple[str, ...]]:
    """Set name -> descriptions: 100 asr, 100 tts, 50 music_caption, 50 text_to_music."""
    sets = json.loads(Path(__file__).with_name("instructions.json").read_text(encoding="utf-8"))
    return {name: tuple(lines) for name, lines in sets.items()}


def draw_instructions(
    client: httpx.Client, base_url: str, model: str, name: str, count: int, known: Sequence[str] = ()
) -> list[str]:
    """`count` new descriptions for set `name` from POST `base_url`/chat/completions, none of them in `known`.

    `client` brings keys and time-outs. Raises InputError for an unknown set, an endpoint that answers with an error
    or not in the form of OpenAI's API, or one that gives nothing new three times in a row.
    """
    if name not in REQUESTS:
        raise InputError(f"instruction set {name!r} is unknown: choose from {', '.join(SETS)}")
    found: list[str] = []
    seen = {_key(line) for line in known}
    empty_rounds = 0
    while len(found) < count:
        new = []
        for line in _ask(client, base_url, model, name, count - len(found), [*known, *found]):
            if _key(line) not in seen:
                seen.add(_key(line))
                new.append(line)
        found += new
        empty_rounds = 0 if new else empty_rounds + 1
        if empty_rounds == MAX_EMPTY_ROUNDS:
            raise InputError(
                f"{base_url} gave {len(found)} of {count} new {name!r} instructions and then nothing new: "
                "ask for fewer, or another model"
            )
    return found[:count]


def draw_from_endpoint(endpoint: str, model: str, name: str, count: int) -> list[str]:
    """`draw_instructions` of what is not built in, with the key that OPENAI_API_KEY holds where it is set."""
    import httpx

    key = os.environ.get("OPENAI_API_KEY", "").strip()  # an error about a header would show it
    with httpx.Client(timeout=TIMEOUT_S, headers={"Authorization": f"Bearer {key}"} if key else {}) as client:
        return draw_instructions(client, endpoint, model, name, count, built_in().get(name, ()))


def _ask(client: httpx.Client, base_url: str, model: str, name: str, count: int, known: Sequence[str]) -> list[str]:
    import httpx

    request = (
        f"{REQUESTS[name]} Write {count} different ways to ask for that in one short sentence, one on each line, "
        f"without numbers, quotation marks or a full stop. None of these: {'; '.join(known[-20:]) or '-'}"
    )
    url = f"{base_url.rstrip('/')}/chat/completions"
    try:
        answer = _post(client, url, {"model": model, "messages": [{"role": "user", "content": request}]})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(
            f"{url} failed: {error}: give the base URL and model of an OpenAI-compatible endpoint"
        ) from None
    try:
        content: Any = json.loads(answer)["choices"][0]["message"]["content"]
        if not isinstance(content, str):
            raise TypeError(f"content is {content!r}")
    except (KeyError, IndexError, TypeError, ValueError):
        raise InputError(
            f"{url} answered {answer[:200].decode(errors='replace')!r}, expected a text in choices[0].message.content"
        ) from None
    return _sentences(content)


def _post(client: httpx.Client, url: str, body: dict[str, Any]) -> bytes:
    """The answer's bytes. Raises InputError for one that does not end: in time, or at all."""
    deadline_s = time.monotonic() + TIMEOUT_S
    answer = b""
    with client.stream("POST", url, json=body) as response:
        response.raise_for_status()
        for part in response.iter_bytes():
            answer += part
            if time.monotonic() > deadline_s or len(answer) > MAX_ANSWER_BYTES:
                raise InputError(
                    f"{url} has sent {len(answer)} bytes and not ended after {TIMEOUT_S:g} s or {MAX_ANSWER_BYTES} "
                    "bytes: use another endpoint or model"
                )
    return answer


def _sentences(content: str) -> list[str]:
    """The lines that may be descriptions: no thoughts, headings ("Here are ten:"), fences or essays."""
    lines = (line.strip() for line in _THOUGHTS.sub("", content).splitlines())
    lines = (_BULLET.sub("", line).strip().strip("\"'“”").rstrip(" .") for line in lines if not line.endswith(":"))
    return [line for line in lines if len(line) <= MAX_CHARACTERS and any(letter.isalpha() for letter in line)]


def _key(line: str) -> str:
    return " ".join(line.lower().split()).rstrip(" .!?")
