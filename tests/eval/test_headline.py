import random

import pytest

from eval.headline import build_tables, compute_metrics, result_sha256, select_headline, wall_metric
from eval.samples import score_sample, word_sample


def _samples():
    found = []
    for number in range(10):
        part = "digits" if number % 2 else "sentences"
        heard = "one two three four" if number else "one two three nine"
        fields = {"task": "asr", "judge": "words-1", "subsets": (part,), "speaker": "v"}
        found.append(word_sample("asr_wer", f"u{number}", reference="one two three four", hypothesis=heard, **fields))
        found.append(score_sample("tts_sim_same", f"u{number}", score=0.8, task="tts", judge="voice-1"))
    return found


def test_a_line_counts_errors_over_words_and_its_parts_beside_it():
    metrics = compute_metrics(_samples(), seed=1)
    assert metrics["asr_wer"]["value"] == pytest.approx(1 / 40)
    assert metrics["asr_wer_sentences"]["value"] == pytest.approx(1 / 20)
    assert metrics["asr_wer_digits"]["value"] == 0.0
    assert metrics["asr_wer_digits"]["n_expected"] == 5
    assert metrics["tts_sim_same"]["value"] == pytest.approx(0.8)
    low, high = metrics["asr_wer"]["ci95"]
    assert 0 <= low <= 1 / 40 <= high


def test_a_failed_sample_counts_as_wholly_wrong_and_as_not_scored():
    failed = [
        word_sample("asr_wer", "bad", reference="one two", hypothesis=None, error="Timeout: x", task="asr", judge="w"),
        score_sample("tts_sim_same", "bad", score=0.9, error="empty: x", task="tts", judge="v"),
    ]
    metrics = compute_metrics(_samples() + failed, seed=1)
    assert metrics["asr_wer"]["value"] == pytest.approx(3 / 42)
    assert (metrics["asr_wer"]["n_scored"], metrics["asr_wer"]["n_expected"]) == (10, 11)
    assert metrics["tts_sim_same"]["value"] == pytest.approx(8.0 / 11)


def test_hash_and_metrics_do_not_depend_on_the_order_of_samples():
    samples = _samples()
    mixed = random.Random(5).sample(samples, len(samples))
    assert compute_metrics(samples, seed=1) == compute_metrics(mixed, seed=1)
    headline = select_headline(compute_metrics(samples, seed=1))
    assert result_sha256(headline, samples, {"words": "w"}) == result_sha256(headline, mixed, {"words": "w"})


def test_hash_sees_samples_values_and_judges_but_neither_time_nor_wording_of_errors():
    samples = _samples()
    headline = select_headline(compute_metrics(samples, seed=1))
    known = result_sha256(headline, samples, {"words": "w"})
    assert result_sha256({**headline, "wall_s": wall_metric(3.0)}, samples, {"words": "w"}) == known
    assert result_sha256(headline, samples, {"words": "other"}) != known
    assert result_sha256(headline, samples[1:], {"words": "w"}) != known
    hashes = {
        result_sha256(headline, [score_sample("l", "u", score=0, error=why, task="t", judge="j")], {})
        for why in ("timeout at port 8000", "timeout at port 9000")
    }
    assert len(hashes) == 1


def test_the_parts_of_a_line_follow_it_before_its_comparisons():
    lines = ("com_s2s_wer", "com_s2s_wer_ground_truth")
    spoken = [
        word_sample(line, "u", reference="one", hypothesis="one", task="chain", judge="j", subsets=("short",))
        for line in lines
    ]
    (table,) = build_tables(compute_metrics(spoken, seed=1)).values()
    assert [row["line"] for row in table["rows"]] == [name for line in lines for name in (line, f"{line}_short")]


def test_headline_holds_the_named_lines_and_tables_hold_every_line():
    extra = score_sample("caption_exact", "m", score=1.0, task="music", judge="exact-1")
    metrics = compute_metrics([*_samples(), extra], seed=1)
    assert list(select_headline(metrics)) == ["asr_wer", "asr_wer_sentences", "asr_wer_digits", "tts_sim_same"]
    tables = build_tables(metrics)
    assert sorted(row["line"] for table in tables.values() for row in table["rows"]) == sorted(metrics)
