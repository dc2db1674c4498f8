"""What passes between the HTTP side and the engine. Light on purpose: the ingress loads no torch.

Shapes: N = samples.
"""

from dataclasses import dataclass

import numpy as np

from data.grammar.base import Segment


@dataclass(frozen=True)
class Request:
    """One thing to do. `task` names a grammar; `wave` is float32 (N,) at `sample_rate`; `voice` null means the first
    voice; `temperature` 0 is greedy. What the task's prompt shows and is not given here stays empty."""

    task: str
    text: str | None = None
    wave: np.ndarray | None = None
    sample_rate: int = 16000
    voice: str | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """What came of a request. `text` and `wave` are the answer's (null where the task gives none), `question` is the
    question's text in a chain; `segments` is everything generated; `logprob` sums over the generated tokens;
    `finished` is False where the token limit cut the answer short."""

    text: str | None
    question: str | None
    wave: np.ndarray | None
    sample_rate: int
    segments: tuple[Segment, ...]
    prompt_tokens: int
    generated_tokens: int
    logprob: float
    finished: bool


@dataclass(frozen=True)
class TaskInfo:
    """What a task takes and gives: slots of its prompt, and of what it generates."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ModelInfo:
    """What a model can do. `sample_rate` (Hz) is what its audio should be decoded at."""

    tasks: dict[str, TaskInfo]
    voices: tuple[str, ...]
    sample_rate: int
