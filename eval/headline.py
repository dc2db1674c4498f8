"""The numbers of a report, out of nothing but its judged samples, and the hash that two equal runs share."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from data import storage
from eval.samples import Sample, ordered
from eval.statistics import bootstrap_interval, ratio

Metric = dict[str, Any]

INTERVAL_DIGITS = 6
# What a line's name ends in where it counts some of that line's samples alone.
PARTS = ("_sentences", "_digits", "_long", "_short")


def _with_parts(*lines: str) -> tuple[str, ...]:
    return tuple(line + part for line in lines for part in ("", "_sentences", "_digits"))


# What stands in `headline`, in this order; every other line is in `tables` alone.
HEADLINE = (
    *_with_parts("asr_wer", "asr_wer_new_voices", "asr_wer_new_accent", "asr_wer_before_lora"),
    *_with_parts("tts_wer", "tts_wer_ground_truth", "tts_wer_resynthesis", "tts_wer_shuffled"),
    "tts_sim_same",
    "tts_sim_other",
    "clap_matched",
    "clap_generated",
    "clap_mismatched",
    "com_s2t_exact",
    "com_s2t_exact_control",
    "com_t2t_exact",
    "com_t2t_exact_control",
    "com_s2s_wer",
    "com_s2s_wer_control",
)

# Table title -> (note, prefixes of its lines).
TABLES = {
    "Speech recognition": ("Word error rate on test texts; lower is better.", ("asr_wer",)),
    "Speech synthesis: words": (
        "Word error rate of what the recogniser hears, whose language model was fitted on the training texts; "
        "shuffled: against another utterance's text.",
        ("tts_wer",),
    ),
    "Speech synthesis: voice": (
        "Cosine to another recording of the same speaker, or to one of another speaker.",
        ("tts_sim_same", "tts_sim_other"),
    ),
    "Music": (
        "Cosine of clip and caption by an encoder that was fitted on clips of its own; exact: captions of true clips "
        "that are right in every word.",
        ("clap", "caption"),
    ),
    "Chain of modality": (
        "Exact answers, and word error rate of spoken answers; control: the question removed; "
        "long: answers of three or more words.",
        ("com_s2t", "com_t2t", "com_s2s"),
    ),
}


def compute_metrics(samples: Iterable[Sample], *, seed: int, resamples: int = 1000) -> dict[str, Metric]:
    """Every line and every subset of it: name -> {value, ci95, n_scored, n_expected, judge}.

    The order of `samples` does not matter. A failed sample is in the value (as wholly wrong) and in `n_expected`,
    not in `n_scored`.
    """
    lines: dict[str, list[Sample]] = defaultdict(list)
    for sample in ordered(samples):
        lines[sample.line].append(sample)
        for subset in sample.subsets:
            lines[f"{sample.line}_{subset}"].append(sample)
    return {name: _metric(name, lines[name], seed, resamples) for name in sorted(lines)}


def _metric(name: str, samples: list[Sample], seed: int, resamples: int) -> Metric:
    numerators = [sample.numerator for sample in samples]
    denominators = [sample.denominator for sample in samples]
    interval = bootstrap_interval(numerators, denominators, name=name, seed=seed, resamples=resamples)
    return {
        "value": ratio(numerators, denominators),
        "ci95": None if interval is None else [round(bound, INTERVAL_DIGITS) for bound in interval],
        "n_scored": sum(sample.error is None for sample in samples),
        "n_expected": len(samples),
        "judge": samples[0].judge,
    }


def select_headline(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The lines of the flat `headline` map, in its order; what was not evaluated is absent."""
    return {name: dict(metrics[name]) for name in HEADLINE if name in metrics}


def build_tables(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Every line under its table's title: title -> {note, rows: [{line, value, …}]}; empty tables are left out."""
    tables = {}
    for title, (note, prefixes) in TABLES.items():
        names = [name for prefix in prefixes for name in sorted(metrics, key=_reading_order) if name.startswith(prefix)]
        if names:
            tables[title] = {"note": note, "rows": [{"line": name, **metrics[name]} for name in names]}
    return tables


def _reading_order(name: str) -> tuple[int, str, str]:
    """Headline lines in their order, each followed by its parts and what is named after it; others at the end."""
    owners = [line for line in HEADLINE if name == line or name.startswith(f"{line}_")]
    return HEADLINE.index(max(owners, key=len)) if owners else len(HEADLINE), whole_line(name), name


def whole_line(name: str) -> str:
    """The line that `name` is a part of: `asr_wer` of `asr_wer_digits`; `name` itself where it is no part."""
    return next((name.removesuffix(part) for part in PARTS if name.endswith(part)), name)


def wall_metric(wall_s: float) -> Metric:
    """The headline entry of the time that the evaluation took, in seconds."""
    return {"value": round(wall_s, 1), "ci95": None, "n_scored": 1, "n_expected": 1, "judge": "clock"}


def result_sha256(headline: Mapping[str, Metric], samples: Iterable[Sample], judges: Mapping[str, str]) -> str:
    """Hash of what was found: headline values but `wall_s`, samples, judge ids.

    Of a failed sample only the fact counts: the wording of an error may name ports, times and hosts.
    """
    rows = [{**sample.to_row(), "error": sample.error is not None} for sample in ordered(samples)]
    values = {name: metric["value"] for name, metric in headline.items() if name != "wall_s"}
    return storage.hash_json({"headline": values, "samples": rows, "judges": dict(judges)})
