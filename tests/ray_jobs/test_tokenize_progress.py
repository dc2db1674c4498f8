"""Hours, x real time and ETA: of what this run does, beside what earlier ones did."""

import io
import logging
import math

import pytest

from ray_jobs.tokenize_progress import Progress, progress_text


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_numbers_leave_out_what_an_earlier_run_took():
    clock = Clock()
    progress = Progress(10, 7200.0, (4, 2880.0), clock)
    clock.now += 36.0
    numbers = progress.numbers(2, 1440.0)
    assert (numbers["hours_done"], numbers["hours_total"], numbers["shards_done"]) == (1.2, 2.0, 6)
    assert numbers["x_real_time"] == pytest.approx(40.0)
    assert numbers["eta_s"] == pytest.approx(72.0)
    text = "tokenize_speech: 1.20/2.00 h of audio, 6/10 shards, 40 x real time, ETA 0:01:12"
    assert progress_text(numbers) == text


def test_a_manifest_without_lengths_is_judged_by_its_shards():
    clock = Clock()
    progress = Progress(4, 0.0, (0, 0.0), clock)
    assert math.isnan(progress.numbers(0, 0.0)["eta_s"])
    clock.now += 30.0
    assert progress.numbers(1, 600.0)["eta_s"] == pytest.approx(90.0)


def test_the_end_is_the_end_whatever_the_manifest_said():
    progress = Progress(1, 100.0)
    numbers = progress.numbers(1, 80.0)
    assert (numbers["eta_s"], numbers["hours_total"]) == (0.0, numbers["hours_done"])


def test_a_terminal_gets_one_live_line_and_a_file_a_plain_one_every_ten_seconds(caplog):
    clock, terminal = Clock(), Terminal()
    live, plain = Progress(4, 3600.0, clock=clock), Progress(4, 3600.0, clock=clock)
    with caplog.at_level(logging.INFO, "antiphon"):
        for second in range(21):
            clock.now = 100.0 + second
            live.show(live.numbers(0, second), stream=terminal)
            plain.show(plain.numbers(0, second), stream=io.StringIO())
    assert terminal.getvalue().count("\r") == 21
    assert "\n" not in terminal.getvalue()
    assert len(caplog.records) == 3
    live.show(live.numbers(4, 3600.0), last=True, stream=terminal)
    assert terminal.getvalue().endswith("\n")
