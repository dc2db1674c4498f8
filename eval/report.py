"""What an evaluation leaves behind: `report.json` and `samples.jsonl` for programs, `report.html` for people."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eval.headline import (
    Metric,
    build_tables,
    compute_metrics,
    result_sha256,
    select_headline,
    wall_metric,
    whole_line,
)
from eval.plots import interval_chart, loss_curves, tune_chart
from eval.samples import Sample, ordered

FORMAT_VERSION = 1
CHARTED = ("asr_wer", "tts_wer", "com_s2s_wer")
UNCHARTED = ("tts_wer_shuffled", "com_s2s_wer_control")  # near 1, they would squeeze everything else to the left


@dataclass(frozen=True)
class Background:
    """What a report says beside its numbers: where they come from, how the model was trained, what tune found."""

    model_id: str
    recipe: Mapping[str, Any]
    judges: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    training: Sequence[Mapping[str, Any]] = ()
    tune: Mapping[str, Any] | None = None


def build_report(samples: Sequence[Sample], background: Background, *, wall_s: float) -> dict[str, Any]:
    """The content of report.json. The same samples in any order give the same `result_sha256`."""
    recipe = background.recipe
    resamples = int(recipe.get("eval", {}).get("bootstrap_samples", 1000))
    metrics = compute_metrics(samples, seed=int(recipe.get("seed", 1)), resamples=resamples)
    headline = select_headline(metrics)
    return {
        "format_version": FORMAT_VERSION,
        "result_sha256": result_sha256(headline, samples, background.judges),
        "model": background.model_id,
        "headline": {**headline, "wall_s": wall_metric(wall_s)},
        "tables": build_tables(metrics),
        "failures": count_failures(samples),
        "judges": dict(background.judges),
        "tune": background.tune,
        "inputs": dict(background.inputs),
        "provenance": "provenance.json",
        "recipe": dict(recipe),
        "environment": dict(background.environment),
    }


def count_failures(samples: Iterable[Sample]) -> dict[str, int]:
    """How many samples failed, by line; lines without failures are left out."""
    counts: dict[str, int] = {}
    for sample in ordered(samples):
        if sample.error is not None:
            counts[sample.line] = counts.get(sample.line, 0) + 1
    return counts


def sample_rows(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """The rows of samples.jsonl, in their fixed order."""
    return [sample.to_row() for sample in ordered(samples)]


def render_headline(report: Mapping[str, Any]) -> str:
    """The headline as a text table: one line per metric with value, interval and n."""
    rows = [("metric", "value", "95 % interval", "n")]
    rows += [(name, *_cells(name, metric)) for name, metric in report["headline"].items()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip() for row in rows
    )


def _cells(name: str, metric: Metric) -> tuple[str, str, str]:
    value = f"{metric['value']:.1f} s" if name == "wall_s" else f"{metric['value']:.4f}"
    interval = "" if metric["ci95"] is None else "{:.4f} to {:.4f}".format(*metric["ci95"])
    count = "" if name == "wall_s" else f"{metric['n_scored']}/{metric['n_expected']}"
    return value, interval, count


def render_html(
    report: Mapping[str, Any],
    background: Background,
    gallery: Sequence[Mapping[str, Any]] = (),
    transcripts: Sequence[Sample] = (),
) -> str:
    """One self-contained page: no script, nothing loaded from elsewhere, everything from outside escaped."""
    environment = Environment(
        loader=PackageLoader("eval", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["rate"] = format_value
    environment.filters["commit"] = format_commit
    environment.tests["part"] = lambda line: line != whole_line(line)
    wers = {k: v for k, v in report["headline"].items() if k.startswith(CHARTED) and not k.startswith(UNCHARTED)}
    return environment.get_template("report.html.jinja").render(
        report=report,
        background=background,
        gallery=gallery,
        transcripts=transcripts,
        cards=_summary(report["headline"]),
        wer_chart=interval_chart(wers, "word error rate"),
        loss_chart=loss_curves(background.training),
        tune_chart=tune_chart((background.tune or {}).get("trials", [])),
    )


def format_value(name: str, value: float) -> str:
    """A value as people read it: error rates and exact answers in percent, similarities plain, a time in minutes."""
    if name == "wall_s":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"{100 * value:.1f} %" if "wer" in name or "exact" in name else f"{value:.3f}"


def format_commit(commit: str) -> str:
    """A short commit that still says whether the tree had changes: `+dirty` stands at the end of the full one."""
    digits, plus, _ = commit.partition("+")
    return digits[:12] + (" with changes" if plus else "")


def _summary(headline: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """The few numbers at the top of the page, each with its interval and with what it is to be compared with."""
    wanted = (
        ("Recognition, word errors", "asr_wer", "new voices", "asr_wer_new_voices"),
        ("Synthesis, word errors", "tts_wer", "true recordings", "tts_wer_ground_truth"),
        ("Voice, same speaker", "tts_sim_same", "other speakers", "tts_sim_other"),
        ("Music, fit to caption", "clap_generated", "true clips", "clap_matched"),
        ("Spoken question, exact answer", "com_s2t_exact", "without the question", "com_s2t_exact_control"),
        ("Spoken answer, word errors", "com_s2s_wer", "without the question", "com_s2s_wer_control"),
    )
    cards = []
    for title, name, beside, other in wanted:
        if name in headline:
            metric = headline[name]
            lines = [f"{beside}: {format_value(other, headline[other]['value'])}"] if other in headline else []
            if metric["ci95"]:
                low, high = (format_value(name, bound) for bound in metric["ci95"])
                lines.insert(0, f"{low} to {high}, n {metric['n_expected']}")
            cards.append({"title": title, "value": format_value(name, metric["value"]), "lines": lines})
    return cards
