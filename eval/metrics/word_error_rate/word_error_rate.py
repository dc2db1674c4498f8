"""The word error rate as a module of Hugging Face `evaluate`, loaded offline by the path of its folder.

evaluate.load("eval/metrics/word_error_rate").compute(predictions=[…], references=[…])
"""

from typing import Any

import datasets
import evaluate

from eval.metrics.wer import NORMALIZATION, corpus_word_errors

_DESCRIPTION = "Corpus-level word error rate by jiwer, after a named text normalisation."
_KWARGS = "predictions, references: lists of strings of equal length."


class WordErrorRate(evaluate.Metric):
    """Computes {wer, errors, words, normalization}."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        counts = corpus_word_errors(references, predictions)
        return {
            "wer": counts.rate,
            "errors": counts.errors,
            "words": counts.reference,
            "normalization": NORMALIZATION,
        }
