"""A bigram language model in ARPA form, from training texts alone: what the recogniser expects to hear."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable

START, END = "<s>", "</s>"
DISCOUNT = 0.5


def bigram_arpa(texts: Iterable[str]) -> str:
    """The bigram model of `texts` with absolute discounting (Ney, Essen, Kneser 1994), as an ARPA file.

    Words are what `str.split` gives. Raises ValueError when there is no word at all.
    """
    sentences = [words for words in (text.split() for text in texts) if words]
    if not sentences:
        raise ValueError("no words to count: a language model needs at least one training text")
    unigrams: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for words in sentences:
        path = [START, *words, END]
        unigrams.update(path[1:])
        bigrams.update(itertools.pairwise(path))
    followers = Counter(first for first, _ in bigrams)
    totals: Counter[str] = Counter()
    for (first, _), count in bigrams.items():
        totals[first] += count
    # Add-one over the vocabulary, so that backing off never gives a word no chance.
    mass = sum(unigrams.values()) + len(unigrams)
    unigram = {word: (count + 1) / mass for word, count in unigrams.items()}
    backoff = _backoff_weights(unigram, bigrams, followers, totals)
    return _write(unigram, backoff, bigrams, totals)


def _backoff_weights(
    unigram: dict[str, float],
    bigrams: Counter[tuple[str, str]],
    followers: Counter[str],
    totals: Counter[str],
) -> dict[str, float]:
    """What is left for unseen followers, shared in proportion to their unigram chance."""
    seen_mass: Counter[str] = Counter()
    for first, second in bigrams:
        seen_mass[first] += unigram[second]  # type: ignore[assignment]
    return {word: (DISCOUNT * followers[word] / totals[word]) / max(1.0 - seen_mass[word], 1e-9) for word in followers}


def _write(
    unigram: dict[str, float],
    backoff: dict[str, float],
    bigrams: Counter[tuple[str, str]],
    totals: Counter[str],
) -> str:
    lines = ["\\data\\", f"ngram 1={len(unigram) + 1}", f"ngram 2={len(bigrams)}", "", "\\1-grams:"]
    lines.append(f"-99.0000 {START} {_log10(backoff[START])}")
    for word in sorted(unigram):
        tail = f" {_log10(backoff[word])}" if word in backoff else ""
        lines.append(f"{_log10(unigram[word])} {word}{tail}")
    lines += ["", "\\2-grams:"]
    for (first, second), count in sorted(bigrams.items()):
        lines.append(f"{_log10((count - DISCOUNT) / totals[first])} {first} {second}")
    return "\n".join([*lines, "", "\\end\\", ""])


def _log10(probability: float) -> str:
    # A back-off weight may pass 1, so its logarithm may be positive.
    return f"{math.log10(max(probability, 1e-12)):.4f}"
