"""Judged samples: the rows of `samples.jsonl`, and the only thing that the headline is computed from."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from eval.metrics.wer import count_word_errors

SCORE_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """One utterance under one line of the report.

    `line` is the line of the report it counts in, `subsets` name the parts of that line it also counts in
    (`asr_wer` and `digits` -> `asr_wer_digits`). Word error lines fill `errors` and `words`, others `score`.
    `error` says why nothing could be judged; such a sample counts as wholly wrong.
    """

    line: str
    id: str
    task: str
    judge: str
    reference: str | None = None
    hypothesis: str | None = None
    errors: int | None = None
    words: int | None = None
    score: float | None = None
    subsets: tuple[str, ...] = ()
    speaker: str | None = None
    audio: str | None = None
    error: str | None = None

    @property
    def numerator(self) -> float:
        """What this sample adds above the line's fraction."""
        return float((self.errors if self.words is not None else self.score) or 0.0)

    @property
    def denominator(self) -> float:
        """What this sample adds below the line's fraction."""
        return float(self.words if self.words is not None else 1.0)

    def to_row(self) -> dict[str, Any]:
        """The JSON form, a row of samples.jsonl."""
        return {**asdict(self), "subsets": list(self.subsets)}


def word_sample(
    line: str, identity: str, *, reference: str, hypothesis: str | None, error: str | None = None, **fields: Any
) -> Sample:
    """A sample of a word error line. With `error`, or no hypothesis, every word of the reference counts as deleted."""
    heard = hypothesis if hypothesis is not None and error is None else ""
    errors, words = count_word_errors(reference, heard)
    return Sample(
        line,
        identity,
        reference=reference,
        hypothesis=None if error else heard,
        errors=errors,
        words=words,
        error=error,
        **fields,
    )


def score_sample(line: str, identity: str, *, score: float | None, error: str | None = None, **fields: Any) -> Sample:
    """A sample of a line that averages scores. With `error` the score is 0."""
    value = 0.0 if error is not None or score is None else round(float(score), SCORE_DIGITS)
    return Sample(line, identity, score=value, error=error, **fields)


def ordered(samples: Iterable[Sample]) -> list[Sample]:
    """The samples in the one order that everything computed from them uses: by line, then id."""
    return sorted(samples, key=lambda sample: (sample.line, sample.id))
