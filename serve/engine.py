"""What the endpoint does with a model folder: requests in, replies out, many at a time. No cluster needed.

A reply depends on its own request alone: tokens by model/decode.py, audio encoded and synthesised one by one.

Shapes: N = samples, T = frames, K = codebooks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from data.audio import resample
from data.errors import InputError
from data.grammar.base import Grammar, Segment
from data.grammar.expressive import split
from data.store import Record
from data.text_tokenizer import decode_text
from model.decode import Generated, Prompt, Sampling, generate, step_model
from model.export import load_model_folder
from serve.messages import ModelInfo, Reply, Request, TaskInfo

log = logging.getLogger("antiphon")

TEXT_KINDS = ("text", "caption")


class Engine:
    """A model folder, loaded. Thread-safe only under a caller's lock (one decode at a time)."""

    def __init__(self, model_folder: str, dtype: str = "float64", max_new_tokens: int = 400) -> None:
        self._folder = load_model_folder(model_folder)
        self._model = step_model(self._folder.lm, getattr(torch, dtype))
        self._max_new_tokens = max_new_tokens
        streams = self._folder.vocabulary.streams
        self.voices: tuple[str, ...] = tuple(self._folder.vocabulary.voices)
        self.tasks = {name: self._describe(grammar, streams) for name, grammar in self._folder.grammars.items()}
        rates = [tokenizer.sample_rate for tokenizer in self._folder.audio_tokenizers.values()]
        self.info = ModelInfo(self.tasks, self.voices, max(rates, default=16000))
        for name, grammar in self._folder.grammars.items():
            if not grammar.continuation.can_end:
                form = self._folder.info.get("formats", {}).get(name, {})
                end = f"grammar.formats.{name}.end: '[eos]'" if "end" in form else "[eos] at the end of its patterns"
                log.warning(
                    "task %r has no end marker: its answers always have %d tokens; train it with %s to let it stop, or "
                    "give max_new_tokens in each request",
                    name,
                    max_new_tokens,
                    end,
                )

    def generate(self, requests: Sequence[Request]) -> list[Reply | InputError]:
        """Answer all requests, of any tasks, in one batch. One that cannot be answered gives its InputError."""
        prepared = [self._prepare(request) for request in requests]
        prompts = [item for item in prepared if isinstance(item, Prompt)]
        answers = iter(generate(self._model, prompts))
        replies: list[Reply | InputError] = []
        for request, item in zip(requests, prepared, strict=True):
            replies.append(self._answer(request, item, next(answers)) if isinstance(item, Prompt) else item)
        return replies

    def run(self, task: str, requests: Sequence[dict[str, Any]]) -> list[Reply]:
        """Answer requests of one task, given as fields of Request. Raises the first InputError."""
        replies = []
        for reply in self.generate([Request(task=task, **fields) for fields in requests]):
            if isinstance(reply, InputError):
                raise reply
            replies.append(reply)
        return replies

    def transcribe(self, waves: Sequence[np.ndarray], sample_rate: int = 16000) -> list[str]:
        """Text of each wave (float32, mono)."""
        return [reply.text or "" for reply in self.run("asr", [{"wave": w, "sample_rate": sample_rate} for w in waves])]

    def speak(self, texts: Sequence[tuple[str, str | None]]) -> list[tuple[np.ndarray, int]]:
        """Waveform and sample rate of each (text, voice)."""
        replies = self.run("tts", [{"text": text, "voice": voice} for text, voice in texts])
        return [(_wave_of(reply), reply.sample_rate) for reply in replies]

    def _describe(self, grammar: Grammar, streams: Sequence[str]) -> TaskInfo:
        """Which slots the prompt shows is found by showing them: a prompt grows with what it has a place for."""
        empty = len(grammar.prompt(Record(id="")))
        probes = {"text": Record(id="", text="a"), "caption": Record(id="", caption="a")}
        for stream in streams:
            frame = np.zeros(len(self._folder.vocabulary.codebooks(stream)), dtype=np.int16)
            probes[stream] = Record(id="", streams={stream: frame})
        if self.voices:
            probes["speaker"] = Record(id="", speaker=self.voices[0])
        inputs = tuple(slot for slot, record in probes.items() if len(grammar.prompt(record)) > empty)
        return TaskInfo(inputs, tuple(step.slot for step in grammar.continuation.steps if step.slot))

    def _prepare(self, request: Request) -> Prompt | InputError:
        try:
            grammar = self._grammar(request.task)
            ids = grammar.prompt(self._record(request))
            if len(ids) == 0:
                raise InputError(f"task {request.task!r} has no marker in its prompt, and nothing was given to go on")
            limit = self._model.max_positions
            if len(ids) >= limit:
                raise InputError(f"the input is {len(ids)} tokens long, the model takes {limit}: make it shorter")
        except InputError as error:
            return error
        new_tokens = min(request.max_new_tokens or self._max_new_tokens, self._max_new_tokens)
        sampling = Sampling(request.temperature, request.top_p, request.top_k, request.seed)
        return Prompt(ids, grammar.continuation, new_tokens, sampling)

    def _grammar(self, task: str) -> Grammar:
        if task not in self._folder.grammars:
            raise InputError(f"task {task!r} is unknown to this model: choose from {sorted(self._folder.grammars)}")
        return self._folder.grammars[task]

    def _record(self, request: Request) -> Record:
        """The request as the record whose prompt is rendered."""
        inputs = self.tasks[request.task].inputs
        streams = [slot for slot in inputs if slot in self._folder.vocabulary.streams]
        text_slot = next((slot for slot in TEXT_KINDS if slot in inputs), None)
        if request.wave is not None and not streams:
            raise InputError(f"task {request.task!r} takes no audio: it takes {list(inputs)}")
        if request.text and text_slot is None:
            raise InputError(f"task {request.task!r} takes no text: it takes {list(inputs)}")
        codes = {}
        if request.wave is not None:
            codes = {stream: self._encode(stream, request.wave, request.sample_rate) for stream in streams}
        voice = self._voice(request) if "speaker" in inputs else None
        return Record(
            id="request",
            text=request.text if text_slot == "text" else None,
            caption=request.text if text_slot == "caption" else None,
            speaker=voice,
            streams=codes,
        )

    def _voice(self, request: Request) -> str | None:
        if request.voice is None:
            return self.voices[0] if self.voices else None
        if request.voice not in self.voices:
            raise InputError(f"voice {request.voice!r} is unknown: choose from {list(self.voices)}")
        return request.voice

    def _encode(self, stream: str, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """Codes of a wave as the model was trained on them: flat, frame-major, compressed where the store was."""
        tokenizer = self._folder.audio_tokenizers.get(stream)
        if tokenizer is None:
            raise InputError(f"this model folder has no audio tokenizer for stream {stream!r}: audio cannot be read")
        (codes_TK,) = tokenizer.encode([resample(np.asarray(wave, np.float32), sample_rate, tokenizer.sample_rate)])
        codes = np.asarray(codes_TK, dtype=np.int16).reshape(-1)
        compression = getattr(tokenizer, "compression", None)
        return codes if compression is None else compression.compress(codes)[0]

    def _answer(self, request: Request, prompt: Prompt, generated: Generated) -> Reply | InputError:
        try:
            return self._reply(request, prompt, generated)
        except InputError as error:
            return error

    def _reply(self, request: Request, prompt: Prompt, generated: Generated) -> Reply:
        grammar = self._folder.grammars[request.task]
        ids = np.concatenate([prompt.ids, generated.ids])
        segments = grammar.parse(ids)
        new = tuple(self._from(segment, len(prompt.ids), ids) for segment in segments if segment.end > len(prompt.ids))
        outputs = grammar.continuation.steps
        text_slots = [step.slot for step in outputs if step.slot and step.slot.split(".")[-1] in TEXT_KINDS]
        content = {segment.slot: segment.content for segment in segments}
        is_chain = any(slot.startswith("response.") for slot in text_slots if slot)
        wave, sample_rate = self._speak_segment(grammar, new, request)
        return Reply(
            text=self._written(new, text_slots[-1], ids) if text_slots else None,
            question=str(content.get("text", "")) if is_chain else None,
            wave=wave,
            sample_rate=sample_rate,
            segments=new,
            prompt_tokens=len(prompt.ids),
            generated_tokens=len(generated.ids),
            logprob=generated.logprob,
            finished=generated.finished,
        )

    def _from(self, segment: Segment, start: int, ids: np.ndarray) -> Segment:
        """What a segment shows from id `start` on: a prompt's text or speech may go on in the answer."""
        if segment.start >= start:
            return segment
        content = segment.content[start - segment.start :]
        if isinstance(segment.content, str):
            content = decode_text(self._folder.text_tokenizer, ids[start : segment.end])
        return replace(segment, content=content, start=start)

    def _written(self, segments: tuple[Segment, ...], slot: str | None, ids: np.ndarray) -> str:
        """The text of a slot; that of several spans or chunks is read as one."""
        pieces = [ids[segment.start : segment.end] for segment in segments if segment.slot == slot]
        return decode_text(self._folder.text_tokenizer, np.concatenate(pieces)) if pieces else ""

    def _speak_segment(
        self, grammar: Grammar, segments: tuple[Segment, ...], request: Request
    ) -> tuple[np.ndarray | None, int]:
        """The waveform of the last stream that the task generates; empty where generation was cut short before it."""
        streams = self._folder.vocabulary.streams
        kinds = [step.slot.split(".")[-1] for step in grammar.continuation.steps if step.slot]
        stream = next((kind for kind in reversed(kinds) if kind in streams), None)
        if stream is None:
            return None, 0
        voice = next((str(s.content) for s in segments if s.kind == "voice"), request.voice) or self._default_voice()
        codes = {kind: self._frames(kind, found) for kind, found in split(segments, streams).items() if found}
        vocoder, tokenizer = self._folder.vocoders.get(stream), self._folder.audio_tokenizers.get(stream)
        if vocoder is not None:
            wave = vocoder.synthesize(codes, voice) if stream in codes else np.zeros(0, np.float32)
            return wave, vocoder.sample_rate
        if tokenizer is not None and hasattr(tokenizer, "decode"):
            wave = tokenizer.decode(codes[stream]) if stream in codes else np.zeros(0, np.float32)
            return wave, tokenizer.sample_rate
        if stream not in codes and any(segment.kind in TEXT_KINDS for segment in segments):
            return None, 0  # it was answered in writing
        raise InputError(f"this model folder has no vocoder for stream {stream!r}: audio cannot be made")

    def _frames(self, stream: str, codes: Sequence[int]) -> np.ndarray:
        """Flat codes as int16 (T, K)."""
        return np.asarray(codes, np.int16).reshape(-1, len(self._folder.vocabulary.codebooks(stream)))

    def _default_voice(self) -> str | None:
        return self.voices[0] if self.voices else None


def _wave_of(reply: Reply) -> np.ndarray:
    return reply.wave if reply.wave is not None else np.zeros(0, np.float32)
