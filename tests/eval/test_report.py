import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from data.audio import AudioError
from eval.gallery import build_gallery, shares, spread, transcripts
from eval.report import Background, build_report, format_value, render_headline, render_html, sample_rows
from eval.samples import word_sample
from eval.tasks import TASKS

RECIPE = {"name": "<script>alert('recipe')</script>", "seed": 1, "eval": {"bootstrap_samples": 100}}


def _hear(utterance, path):
    if path is not None and "lost" in path:
        raise AudioError("missing", "<b>gone</b>")
    rng = np.random.default_rng(len(utterance or path))
    return rng.normal(0, 0.1, 3200).astype(np.float32), 16000


@pytest.fixture
def background():
    training = [{"step": n, "phase": "a" if n < 30 else "b", "loss": 5 - n / 20} for n in range(60)]
    trials = [{"trial": n, "weights": {"asr": n / 4, "tts": 1 - n / 4}, "objective": 1 - n / 9} for n in range(4)]
    tune = {"trials": trials, "asked": {"asr": 0.5, "tts": 0.5}, "found": {"asr": 0.75, "tts": 0.25}}
    return Background("model-1", RECIPE, {"words": "words-1"}, {"train": "/runs/train-1"}, {}, training, tune)


@pytest.fixture
def samples(corpus, flawless):
    return [sample for task in TASKS.values() for sample in task.samples(corpus, flawless(corpus))]


def test_report_of_the_same_samples_in_any_order_has_the_same_result(samples, background):
    first = build_report(samples, background, wall_s=1.0)
    second = build_report(random.Random(1).sample(samples, len(samples)), background, wall_s=99.0)
    assert first["result_sha256"] == second["result_sha256"]
    assert {k: v for k, v in first["headline"].items() if k != "wall_s"} == {
        k: v for k, v in second["headline"].items() if k != "wall_s"
    }
    assert first["headline"]["wall_s"]["value"] == 1.0
    for metric in first["headline"].values():
        assert set(metric) == {"value", "ci95", "n_scored", "n_expected", "judge"}
    json.dumps(first, allow_nan=False)


def test_page_is_self_contained_and_escapes_what_comes_from_outside(corpus, samples, background):
    nasty = "<img src=x onerror=alert(1)>"
    samples.append(word_sample("asr_wer", nasty, reference="a", hypothesis=nasty, task="asr", judge=nasty))
    report = build_report(samples, background, wall_s=1.0)
    gallery = build_gallery(corpus, samples, _hear, 12)
    page = render_html(report, background, gallery, transcripts(samples))
    assert nasty not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("<audio") >= 12
    for title in ("Training", "Mixture search", "Transcripts", "Music", "Chain of modality"):
        assert title in page


def test_page_without_gallery_training_or_tune_still_renders(samples):
    plain = Background("model-1", {"name": "x", "seed": 1}, {})
    page = render_html(build_report(samples, plain, wall_s=1.0), plain)
    assert "Mixture search" not in page
    assert "<audio" not in page


def test_page_knows_the_mixture_of_its_own_training_alone(samples, background):
    assert "trained on the recipe" in render_html(build_report(samples, background, wall_s=1.0), background)
    brought = replace(background, inputs={})
    assert "It is not known which mixture" in render_html(build_report(samples, brought, wall_s=1.0), brought)


def test_failures_are_counted_by_line(samples, background):
    failed = word_sample("asr_wer", "z", reference="a", hypothesis=None, error="Timeout", task="asr", judge="w")
    report = build_report([*samples, failed], background, wall_s=1.0)
    assert report["failures"] == {"asr_wer": 1}
    assert "Failed samples" in render_html(report, background)


def test_headline_reads_as_a_table(samples, background):
    lines = render_headline(build_report(samples, background, wall_s=12.34)).splitlines()
    assert lines[0].split()[0] == "metric"
    assert re.search(r"^asr_wer +0\.0000 +0\.0000 to 0\.0000 +8/8$", "\n".join(lines), re.M)
    assert lines[-1].split() == ["wall_s", "12.3", "s"]


def test_sample_rows_are_json_and_in_order(samples):
    rows = sample_rows(samples)
    assert rows == sorted(rows, key=lambda row: (row["line"], row["id"]))
    assert json.loads(json.dumps(rows)) == rows


def test_gallery_shares_players_over_the_tasks_and_notes_what_is_lost(corpus, samples):
    assert shares([120, 64, 60], 12) == [6, 3, 3]
    assert shares([10, 0, 0], 12) == [10, 0, 0]
    assert shares([0, 2, 9], 5) == [0, 2, 3]
    assert spread(range(10), 3) == [0, 3, 6]

    def deaf(utterance, path):
        raise AudioError("missing", "nothing there")

    sections = build_gallery(corpus, samples, deaf, 12)
    players = [player for section in sections for card in section["cards"] for player in card["players"]]
    assert all(player["audio"] is None and "nothing there" in player["note"] for player in players)


def test_values_read_as_people_read_them():
    assert format_value("asr_wer", 0.0513) == "5.1 %"
    assert format_value("tts_sim_same", 0.81234) == "0.812"
    assert format_value("wall_s", 59.4) == "59 s"
    assert format_value("wall_s", 877.9) == "14 min 38 s"


def test_page_says_with_how_much_certainty_and_from_a_changed_tree(samples, background):
    """A short commit that hides the changes beside it would name code that did not make the report."""
    dirty = replace(background, environment={"git_commit": "ab" * 20 + "+dirty", "cpu_count": 2})
    page = render_html(build_report(samples, dirty, wall_s=1.0), dirty)
    assert "commit abababababab with changes" in page
    assert "<td>cpu count</td>" in page
    assert "<span>0.0 % to 0.0 %, n 8</span>" in page
