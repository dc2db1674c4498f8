"""Lets judges listen and vocoders speak, a chunk of utterances at a time: what one judge process does.

Chunks only bound how much one call does. Judges keep nothing between utterances, so results do not depend on them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from data.audio import AudioError, load_audio, wav_bytes
from eval.asking import describe
from eval.corpus import EvalCorpus
from eval.metrics.wer import NORMALIZATION
from eval.tasks.base import Answer, Listening, Request, Verdict

JUDGE_HZ = 16000


@dataclass(frozen=True, slots=True)
class Heard:
    """A listening with its sound found: a file, or a span of one. `error` where there is nothing to hear.

    `may_be_silent`: a model that answered with no sound at all has said no words, which can be judged.
    """

    key: str
    kind: str
    noise_id: str
    path: str | None = None
    offset_s: float = 0.0
    duration_s: float | None = None
    text: str | None = None
    may_be_silent: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class JudgeFolders:
    """Where fitted judges lie; the speaker encoder ships its own weights."""

    recogniser: str | None = None
    clap: str | None = None


@dataclass(frozen=True, slots=True)
class VocoderFolders:
    """stream -> folder of a vocoder, and of an audio tokenizer that can decode where there is no vocoder."""

    vocoders: Mapping[str, str] = field(default_factory=dict)
    tokenizers: Mapping[str, str] = field(default_factory=dict)


def locate(listening: Listening, corpus: EvalCorpus, answers: Mapping[str, Answer], root: str) -> Heard:
    """Where to hear what `listening` asks for; `root` is the folder that paths of answers count from."""
    known = Heard(listening.key, listening.kind, listening.noise_id)
    if listening.text is not None:
        return replace(known, text=listening.text)
    if listening.utterance is not None:
        utterance = corpus.utterances[listening.utterance]
        path = corpus.audio(utterance.id)
        return replace(known, path=path, offset_s=utterance.offset, duration_s=utterance.duration)
    answer = answers.get(listening.answer or "") or Answer(error="no answer")
    if answer.audio is None:
        return replace(known, error=answer.error or "the answer holds no audio")
    return replace(known, path=f"{root.rstrip('/')}/{answer.audio}", may_be_silent=True)


def judge_chunk(folders: JudgeFolders, chunk: Sequence[Heard]) -> list[tuple[str, Verdict]]:
    """(key, verdict) of every item. A failing judge fails its item alone."""
    return [(item.key, _judge(folders, item)) for item in chunk]


def _judge(folders: JudgeFolders, item: Heard) -> Verdict:
    if item.error is not None:
        return Verdict(error=item.error)
    try:
        if item.kind == "embed_caption":
            return _vector(load_judge("clap", folders.clap).embed_text(item.text or ""))
        wave = load_audio(item.path or "", JUDGE_HZ, item.offset_s, item.duration_s)
        if item.kind == "transcribe":
            return Verdict(text=load_judge("recogniser", folders.recogniser).transcribe(wave, JUDGE_HZ, item.noise_id))
        if item.kind == "embed_voice":
            return _vector(load_judge("speaker", None).embed(wave, JUDGE_HZ))
        return _vector(load_judge("clap", folders.clap).embed_audio(wave, JUDGE_HZ))
    except AudioError as error:
        silent = error.reason == "empty" and item.may_be_silent and item.kind == "transcribe"
        return Verdict(text="") if silent else Verdict(error=describe(error))
    except Exception as error:  # one sample that cannot be judged is that sample's failure, and is counted
        return Verdict(error=describe(error))


def _vector(embedding: np.ndarray) -> Verdict:
    return Verdict(vector=tuple(float(value) for value in np.asarray(embedding).ravel()))


@cache
def load_judge(role: str, folder: str | None) -> Any:
    """A judge of this process, loaded once. Raises ValueError where its folder is lacking."""
    if role == "speaker":
        from eval.judges.speaker import SpeakerEncoder

        return SpeakerEncoder()
    if folder is None:
        raise ValueError(f"no {role} judge: the recipe's judges section leaves it out")
    if role == "recogniser":
        from eval.judges.recogniser import Recogniser

        return Recogniser(folder)
    from eval.judges.clap import ClapJudge

    return ClapJudge(folder)


def judge_ids(folders: JudgeFolders, kinds: Collection[str]) -> dict[str, str]:
    """The exact judges by role: those that the listenings' `kinds` call on, and the two that compare text."""
    ids = {"words": f"jiwer-{version('jiwer')}-{NORMALIZATION}", "exact": f"exact-{NORMALIZATION}"}
    roles = {"transcribe": "recogniser", "embed_voice": "speaker", "embed_music": "clap"}
    paths = {"recogniser": folders.recogniser, "speaker": None, "clap": folders.clap}
    for kind, role in roles.items():
        if kind in kinds:
            ids[role] = load_judge(role, paths[role]).id
    return ids


def resynthesise_chunk(
    folders: VocoderFolders, chunk: Sequence[Request], save: Callable[[str, bytes], str]
) -> list[tuple[str, Answer]]:
    """(key, answer) of every request to make codes audible; `save` as in `ask_all`."""
    found = []
    for request in chunk:
        try:
            wave, sample_rate = _resynthesise(folders, request)
            found.append((request.key, Answer(audio=save(request.key, wav_bytes(wave, sample_rate)))))
        except Exception as error:  # one sample that cannot be made audible is that sample's failure, and is counted
            found.append((request.key, Answer(error=describe(error))))
    return found


def _resynthesise(folders: VocoderFolders, request: Request) -> tuple[np.ndarray, int]:
    stream, codes = request.stream or "", np.asarray(request.codes)
    if stream in folders.vocoders:
        vocoder = _load_vocoder(folders.vocoders[stream])
        return vocoder.synthesize({stream: codes}, request.voice), vocoder.sample_rate
    tokenizer = _load_tokenizer(folders.tokenizers[stream])
    return tokenizer.decode(codes.reshape(-1, tokenizer.num_codebooks)), tokenizer.sample_rate


@cache
def _load_vocoder(folder: str) -> Any:
    from model.vocoders.base import load_vocoder

    return load_vocoder(folder)


@cache
def _load_tokenizer(folder: str) -> Any:
    from model.audio_tokenizers.base import load_audio_tokenizer

    return load_audio_tokenizer(folder)
