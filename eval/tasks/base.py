"""What benchmark tasks are made of.

A task is three plain functions of the corpus: `requests` (what to ask the endpoint or the vocoder), `listenings`
(what the judges shall hear) and `samples` (judged samples out of answers and verdicts). Who asks and who listens,
and on which machine, is the job's business.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from eval.corpus import EvalCorpus
from eval.samples import Sample

ENDPOINT_FORMS = ("transcribe", "speak", "chat")


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask for. `audio` is an utterance's id, or "silence"; `codes` are for `resynthesise` alone."""

    key: str
    form: Literal["transcribe", "speak", "chat", "resynthesise"]
    model: str = "final"
    task: str | None = None
    text: str | None = None
    audio: str | None = None
    voice: str | None = None
    stream: str | None = None
    codes: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: text, a wav file inside the run folder, or the reason why nothing did."""

    text: str | None = None
    audio: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """One thing a judge shall judge: the true recording of `utterance`, the audio of an `answer`, or a text.

    `noise_id` seeds whatever a judge draws: the same for all renderings of one utterance, so that they are compared
    under the same noise.
    """

    key: str
    kind: Literal["transcribe", "embed_voice", "embed_music", "embed_caption"]
    noise_id: str
    utterance: str | None = None
    answer: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge heard: words, or an embedding, or why it failed."""

    text: str | None = None
    vector: tuple[float, ...] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was answered and judged, by key, and the judges' ids by role."""

    answers: Mapping[str, Answer]
    verdicts: Mapping[str, Verdict]
    judges: Mapping[str, str]

    def answer(self, key: str) -> Answer:
        """The answer to a request; one that never came is a failed one."""
        return self.answers.get(key) or Answer(error="no answer")

    def verdict(self, key: str) -> Verdict:
        """The verdict of a listening; one that never came is a failed one."""
        return self.verdicts.get(key) or Verdict(error="not judged")


class Task(Protocol):
    """A benchmark task; each module of eval/tasks but this one is one."""

    def requests(self, corpus: EvalCorpus) -> list[Request]:
        """What to ask for; empty where corpus or grammar have nothing for this task."""

    def listenings(self, corpus: EvalCorpus) -> list[Listening]:
        """What the judges shall hear."""

    def samples(self, corpus: EvalCorpus, evidence: Evidence) -> list[Sample]:
        """The judged samples of every line of this task."""


def choose(seed: int, identity: str, candidates: Sequence[str]) -> str:
    """One of `candidates`, by (seed, identity) alone: neither order nor company of other draws matters."""
    digest = hashlib.sha256(f"{seed}/{identity}".encode()).digest()
    return sorted(candidates)[int.from_bytes(digest[:8], "big") % len(candidates)]


def derangement(seed: int, identities: Iterable[str]) -> dict[str, str]:
    """A permutation of `identities` without fixed points: each is given the next one on a seeded circle.

    A single identity has none and is left out.
    """
    circle = sorted(identities, key=lambda identity: hashlib.sha256(f"{seed}/{identity}".encode()).digest())
    return dict(zip(circle, circle[1:] + circle[:1], strict=True)) if len(circle) > 1 else {}


def cosine(first: Verdict, second: Verdict) -> tuple[float | None, str | None]:
    """The cosine of two embeddings in [-1, 1], or the error of the one that is lacking."""
    error = first.error or second.error
    if error is not None or first.vector is None or second.vector is None:
        return None, error or "no embedding"
    left, right = np.asarray(first.vector, np.float64), np.asarray(second.vector, np.float64)
    length = float(np.linalg.norm(left) * np.linalg.norm(right))
    return (float(left @ right) / length, None) if length else (None, "an embedding is zero")
