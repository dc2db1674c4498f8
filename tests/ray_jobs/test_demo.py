"""The whole main job in its reduced size: twice anew with one result, once interrupted and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data import storage

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "configs" / "tiny.yaml"
LIMIT_S = 600
HEADLINE = [
    *(f"asr_wer{part}" for part in ("", "_sentences", "_digits")),
    *(f"asr_wer_new_voices{part}" for part in ("", "_sentences", "_digits")),
    *(f"asr_wer_new_accent{part}" for part in ("", "_sentences", "_digits")),
    *(
        f"tts_wer{line}{part}"
        for line in ("", "_ground_truth", "_resynthesis", "_shuffled")
        for part in ("", "_sentences", "_digits")
    ),
    *("tts_sim_same", "tts_sim_other", "clap_matched", "clap_generated", "clap_mismatched"),
    *("com_s2t_exact", "com_t2t_exact", "com_s2s_wer"),
    *("com_s2t_exact_control", "com_t2t_exact_control", "com_s2s_wer_control"),
    *("asr_wer_before_lora", "wall_s"),
]


def start_demo(runs_dir: Path) -> subprocess.Popen:
    """The demo as a user starts it, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.demo", str(TINY), f"runs_dir={runs_dir}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish_demo(process: subprocess.Popen) -> list[str]:
    """Its lines of stdout once it is done; fails with its log otherwise."""
    out, log = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, log[-8000:]
    return out.splitlines()


def wait_for(found, process: subprocess.Popen) -> None:
    """Until `found()` holds, while the demo runs."""
    deadline = time.monotonic() + LIMIT_S
    while not found():
        assert process.poll() is None, process.communicate()[1][-8000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The runs folder and the report of one finished demo."""
    runs_dir = tmp_path_factory.mktemp("runs")
    lines = finish_demo(start_demo(runs_dir))
    return runs_dir, lines


@pytest.mark.slow
def test_the_demo_ends_with_table_report_and_folder(first):
    runs_dir, lines = first
    folder = Path(lines[-1])
    assert lines[-2] == str(folder / "report.html")
    assert (runs_dir / "demo").resolve() == folder.resolve()
    assert any("planned s" in line for line in lines)
    assert any(line.startswith("asr_wer ") for line in lines)


@pytest.mark.slow
def test_the_report_has_every_line_of_the_headline(first):
    report = json.loads((first[0] / "demo" / "report.json").read_text())
    headline = report["headline"]
    assert [name for name in HEADLINE if name not in headline] == []
    for name, line in headline.items():
        assert set(line) == {"value", "ci95", "n_scored", "n_expected", "judge"}, name
        assert line["n_scored"] <= line["n_expected"], name
        if line["ci95"] is not None:
            assert line["ci95"][0] <= line["value"] <= line["ci95"][1], name
    page = (first[0] / "demo" / "report.html").read_text()
    assert page.count("<audio") >= 4
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_a_demo_killed_in_training_goes_on_and_gives_the_same_result(first, tmp_path):
    process = start_demo(tmp_path)
    wait_for(lambda: list(tmp_path.glob("train-*/checkpoints/*")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    resumed = start_demo(tmp_path)
    finish_demo(resumed)
    one = storage.read_json(first[0] / "demo" / "report.json")
    other = storage.read_json(tmp_path / "demo" / "report.json")
    assert one["result_sha256"] == other["result_sha256"]
    steps = [row["step"] for row in storage.read_jsonl(next(tmp_path.glob("train-*/metrics.jsonl")))]
    assert steps == list(range(1, len(steps) + 1))
