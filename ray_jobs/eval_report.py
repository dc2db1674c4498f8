"""Writes what an evaluation found, beside what is known of the model's training and of the mixture search."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from data import storage
from data.audio import load_audio
from eval.corpus import EvalCorpus
from eval.gallery import Wave, build_gallery, transcripts
from eval.judging import JUDGE_HZ
from eval.report import Background, build_report, render_headline, render_html, sample_rows
from eval.samples import Sample
from ray_jobs.eval_endpoint import EvaluatedModel
from ray_jobs.job import Run
from ray_jobs.recipe import Recipe

log = logging.getLogger("antiphon")


def write_report(
    run: Run,
    corpus: EvalCorpus,
    samples: Sequence[Sample],
    judges: Mapping[str, str],
    model: EvaluatedModel,
    started: float,
) -> None:
    """report.json, samples.jsonl and report.html; `started` is the evaluation's start on time.monotonic's clock."""

    def hear(utterance: str | None, path: str | None) -> Wave:
        if utterance is None:
            return load_audio(run.folder.file(path or ""), JUDGE_HZ), JUDGE_HZ
        found = corpus.utterances[utterance]
        return load_audio(corpus.audio(utterance), JUDGE_HZ, found.offset, found.duration), JUDGE_HZ

    background = _background(run, judges, model)
    gallery = build_gallery(corpus, samples, hear, run.recipe.eval.report_samples)
    report = build_report(samples, background, wall_s=upstream_s(run) + time.monotonic() - started)
    storage.write_jsonl(run.folder.file("samples.jsonl"), sample_rows(samples))
    page = render_html(report, background, gallery, transcripts(samples))
    storage.write_text(run.folder.file("report.html"), page)
    storage.write_json(run.folder.file("report.json"), report)
    log.info("run_eval: result %s\n%s", report["result_sha256"][:16], render_headline(report))


def upstream_s(run: Run) -> float:
    """Seconds that the jobs behind this report took, one after the other; 0 for folders that do not say."""
    markers = [storage.read_json(storage.join(folder, "_SUCCESS")) for folder in run.inputs.values()]
    return sum(marker.get("wall_s", 0.0) for marker in markers)


def _background(run: Run, judges: Mapping[str, str], model: EvaluatedModel) -> Background:
    provenance = storage.read_json(run.folder.file("provenance.json"))
    return Background(
        model_id=model.id,
        recipe=run.recipe.model_dump(mode="json"),
        judges=judges,
        inputs=run.inputs,
        environment={name: provenance.get(name) for name in ("git_commit", "source_sha256", "python", "cpu_count")},
        training=_training_rows(run),
        tune=read_tune(run.recipe),
    )


def _training_rows(run: Run) -> list[dict[str, Any]]:
    path = storage.join(run.inputs["train"], "metrics.jsonl") if "train" in run.inputs else None
    return list(storage.read_jsonl(path)) if path and storage.exists(path) else []


def read_tune(recipe: Recipe) -> dict[str, Any] | None:
    """What a finished mixture search of the same recipe found: {trials, asked, found}; None where there is none."""
    from ray_jobs import tune  # Ray Tune takes long to import, and a dry run does without

    folder = tune.JOB.folder(recipe.without_arguments())
    if not folder.done:
        return None
    found = yaml.safe_load(storage.read_text(folder.file("mixture.yaml")))["weights"]
    target = next((phase.weights for phase in recipe.train.phases if phase.mixture_target), {})
    return {
        "folder": folder.path,
        "trials": storage.read_json(folder.file("trials.json")),
        "asked": {group: target.get(group, 0.0) for group in found},
        "found": found,
    }
