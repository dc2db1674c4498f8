from pathlib import Path

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.text import WordErrorRate as TheirWordErrorRate

from eval.metrics.wer import (
    NORMALIZATION,
    WordErrorRate,
    character_errors,
    corpus_character_errors,
    corpus_word_errors,
    count_word_errors,
    normalize,
)

MODULE = Path(__file__).resolve().parent.parent.parent / "eval" / "metrics" / "word_error_rate"
sentences = st.lists(st.lists(st.sampled_from(["one", "two", "too", "tree"]), max_size=6).map(" ".join), min_size=4)


@given(sentences, sentences)
@settings(max_examples=50, deadline=None)
def test_ours_jiwers_and_torchmetrics_rates_agree(references: list[str], hypotheses: list[str]) -> None:
    pairs = list(zip(references, hypotheses, strict=False))
    spoken = [(truth, guess) for truth, guess in pairs if truth]
    ours = WordErrorRate()
    for truth, guess in pairs:
        ours.update([guess], [truth])
    counts = corpus_word_errors([truth for truth, _ in pairs], [guess for _, guess in pairs])
    assert float(ours.compute()) == counts.rate
    if spoken:
        theirs = TheirWordErrorRate()
        theirs.update([guess for _, guess in pairs], [truth for truth, _ in pairs])
        assert float(theirs.compute()) == pytest.approx(counts.rate, rel=1e-6)
        defined = jiwer.process_words([truth for truth, _ in spoken], [guess for _, guess in spoken])
        inserted = sum(len(guess.split()) for truth, guess in pairs if not truth)
        assert counts.errors == defined.substitutions + defined.deletions + defined.insertions + inserted


def test_the_local_evaluate_module_loads_offline_and_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    evaluate = pytest.importorskip("evaluate")
    references = ["One, two!", "three four", "", "five"]
    hypotheses = ["one too", "", "six", "five"]
    metric = evaluate.load(str(MODULE), cache_dir=str(tmp_path))
    result = metric.compute(predictions=hypotheses, references=references)
    counts = corpus_word_errors(references, hypotheses)
    assert (counts.substitutions, counts.deletions, counts.insertions, counts.reference) == (1, 2, 1, 5)
    assert result == {"wer": counts.rate, "errors": 4, "words": 5, "normalization": NORMALIZATION}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Hello, World!", "hello world"),
        ("don't -- 'quote'", "don't quote"),
        ("It’s  well-known\n", "it's well known"),
        ("", ""),
        ("?!", ""),
        ("Zürich € 5", "zürich 5"),
    ],
)
def test_normalisation_lowers_strips_punctuation_and_keeps_inner_apostrophes(text: str, normal: str) -> None:
    assert normalize(text) == normal
    assert normalize(normal) == normal


def test_empty_sides_are_counted_as_stated() -> None:
    assert count_word_errors("one two", "") == (2, 2)
    assert count_word_errors("", "one two") == (2, 0)
    assert count_word_errors("...", "") == (0, 0)
    assert corpus_word_errors([""], ["one two"]).rate == 2.0
    assert corpus_word_errors([], []).rate == 0.0


def test_characters_are_counted_by_the_same_rules() -> None:
    counts = character_errors("abc d", "abd d")
    assert (counts.errors, counts.reference) == (1, 5)
    assert character_errors("", "ab").insertions == 2
    assert corpus_character_errors(["ab", "c"], ["ab", ""]).rate == pytest.approx(1 / 3)
