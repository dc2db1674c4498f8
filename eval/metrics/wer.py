"""Word and character error rates. jiwer's alignment is the definition; everything else here adds its counts up.

Rules where jiwer leaves a choice:
- texts are normalised first, by `normalize`, whose name (NORMALIZATION) stands in every result;
- the rate is corpus-level: all errors over all reference words, never a mean of rates;
- an empty reference with a non-empty hypothesis counts its insertions and adds no words;
- without any reference word the rate is the number of errors (as over one word), so it stays finite;
- an utterance that failed has an empty hypothesis: all of its words are deleted.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torchmetrics import Metric

NORMALIZATION = "nfkc-lower-no-punctuation-1"
_APOSTROPHES = "'’"


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Errors against `reference` units (words or characters)."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference: int = 0

    @property
    def errors(self) -> int:
        """All three kinds together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference unit, as a fraction; it passes 1 where much is inserted."""
        return self.errors / max(self.reference, 1)

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference + other.reference,
        )


def normalize(text: str) -> str:
    """NFKC, lower case, punctuation and symbols to spaces, single spaces. Apostrophes inside a word stay."""
    lowered = unicodedata.normalize("NFKC", text).lower()
    kept = [char if _is_kept(lowered, index) else " " for index, char in enumerate(lowered)]
    return " ".join("".join(kept).replace("’", "'").split())


def _is_kept(text: str, index: int) -> bool:
    if text[index] in _APOSTROPHES:
        return text[index - 1 : index].isalpha() and text[index + 1 : index + 2].isalpha()
    return unicodedata.category(text[index])[0] not in "PSC"


def word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """The word errors of one hypothesis, both texts normalised here."""
    import jiwer

    truth, guess = normalize(reference), normalize(hypothesis)
    if not truth:
        return ErrorCounts(insertions=len(guess.split()))
    found = jiwer.process_words(truth, guess)
    return ErrorCounts(found.substitutions, found.deletions, found.insertions, len(truth.split()))


def character_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """The character errors of one hypothesis, both texts normalised here; a space is a character."""
    import jiwer

    truth, guess = normalize(reference), normalize(hypothesis)
    if not truth:
        return ErrorCounts(insertions=len(guess))
    found = jiwer.process_characters(truth, guess)
    return ErrorCounts(found.substitutions, found.deletions, found.insertions, len(truth))


def count_word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """(errors, reference words) of one hypothesis."""
    counts = word_errors(reference, hypothesis)
    return counts.errors, counts.reference


def corpus_word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """The word errors of many hypotheses. Raises ValueError where the two lists differ in length."""
    return _total(word_errors(truth, guess) for truth, guess in zip(references, hypotheses, strict=True))


def corpus_character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """The character errors of many hypotheses. Raises ValueError where the two lists differ in length."""
    return _total(character_errors(truth, guess) for truth, guess in zip(references, hypotheses, strict=True))


def _total(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    return sum(counts, ErrorCounts())


class WordErrorRate(Metric):
    """torchmetrics' accumulation of the same counts: sums that may be reduced over processes.

    `torchmetrics.text.WordErrorRate` on normalised texts gives the same number wherever there is a reference word.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    errors: torch.Tensor
    reference: torch.Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("errors", default=torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("reference", default=torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Add the word errors of `predictions`."""
        counts = corpus_word_errors(references, predictions)
        self.errors += counts.errors
        self.reference += counts.reference

    def compute(self) -> torch.Tensor:
        """The corpus-level rate as a float64 scalar."""
        return self.errors.double() / self.reference.clamp_min(1).double()
