"""The stream's benchmark: its workloads and its arithmetic, and that the whole of it runs."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stream_corpus import UNIT_ALONE, durations_s, full_records, order_of_ids, some_words, unit_tables
from benchmarks.stream_scale import generate_sidecar, measure_start
from benchmarks.stream_speed import FORMATS, StringLeg, make_grammars, rate_of
from data.rows import Rows, write_rows
from data.store import Record, StreamInfo, TokenStore
from data.text_tokenizer import build_byte_words_tokenizer

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = ("speedup_vs_string_pad", "startup_s_10m", "rss_mb_10m", "sidecar_s_10m", "padding_waste", "wall_s")


def test_lengths_are_lognormal_and_clipped():
    lengths_s = durations_s(20_000, np.random.default_rng(0))
    assert (lengths_s.min(), lengths_s.max()) == (1.0, 30.0)
    assert np.median(lengths_s) == pytest.approx(6.0, rel=0.03)
    assert np.percentile(lengths_s, 84.13) / np.median(lengths_s) == pytest.approx(math.exp(0.7), rel=0.04)


def test_every_format_accepts_some_of_the_records():
    rng = np.random.default_rng(1)
    words = some_words(20, rng)
    records = TokenStore(full_records(40, words, rng), {}).records
    streams = {name: StreamInfo(25.0, 4 if name == "music" else 1, 1024, "x") for name in ("unit", "pitch", "style")}
    grammars, _ = make_grammars(FORMATS, {**streams, "music": StreamInfo(50.0, 4, 1024, "x")}, words)
    for name, grammar in grammars.items():
        assert any(grammar.accepts(record) for record in records), name


def test_a_generated_store_has_ids_in_a_known_order(tmp_path):
    with open(tmp_path / "rows", "wb") as handle:
        write_rows(handle, unit_tables(50, np.random.default_rng(0)), UNIT_ALONE)
    rows = Rows(str(tmp_path / "rows"))
    assert order_of_ids(50).tolist() == rows.by_id.tolist()
    assert all(record.split == "train" and len(record.streams["unit"]) >= 25 for record in rows)


def test_a_generated_sidecar_is_started_from(tmp_path):
    generate_sidecar(str(tmp_path), 300)
    found = measure_start(str(tmp_path))
    assert found["utterances"] == 300
    assert 0 < found["startup_s"] < 60
    assert found["peak_mb"] > 20


def test_the_string_loop_counts_what_is_not_padding():
    records = [Record(str(n), streams={"unit": np.arange(n + 1, dtype=np.int16)}) for n in range(8)]
    leg = StringLeg(records, build_byte_words_tokenizer([]))
    assert leg._batch() == sum(n + 1 + 2 for n in range(8))
    assert rate_of(lambda: 0, 0.01) == 0


@pytest.mark.slow
def test_a_quick_run_ends_in_one_line_with_every_number(tmp_path):
    command = [sys.executable, "-m", "benchmarks.stream", "--quick", "--keep", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=600)
    assert finished.returncode == 0
    result = json.loads(finished.stdout.splitlines()[-1])
    assert all(math.isfinite(result[name]) and result[name] > 0 for name in NUMBERS)
    assert set(result["tokens_per_s_core"]) == set(FORMATS)
    assert min(result["tokens_per_s_core"].values()) > 0
    assert result["padding_waste"] < 0.05
    assert result["quick"] is True
