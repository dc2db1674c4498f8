"""How far a tokenization is: hours of audio, x real time and ETA, as a line on stderr and as numbers. No Ray."""

import logging
import math
import sys
import time
from collections.abc import Callable
from typing import TextIO

log = logging.getLogger("antiphon")

LINE_EVERY_S = 10.0
LIVE_EVERY_S = 0.5


class Progress:
    """`total_s` are the seconds of audio that the manifest names, 0 where it names none; `before` what earlier runs
    have done of it, as (shards, seconds)."""

    def __init__(
        self,
        shards: int,
        total_s: float,
        before: tuple[int, float] = (0, 0.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shards, self._total_s = shards, total_s
        self._before_shards, self._before_s = before
        self._clock = clock
        self._started = clock()
        self._shown = -math.inf

    def numbers(self, shards: int, seconds: float) -> dict[str, float]:
        """What this run's `shards` and `seconds` amount to. eta_s is NaN until something is done."""
        elapsed_s = self._clock() - self._started
        shards_done, done_s = self._before_shards + shards, self._before_s + seconds
        # A manifest's lengths are only near the truth; when all is written, what was done is the whole.
        total_s = done_s if shards_done == self._shards else max(self._total_s, done_s)
        if self._total_s:
            new, left = seconds, total_s - done_s
        else:  # without lengths in the manifest only the shards tell how much is left
            new, left = shards, self._shards - shards_done
        return {
            "hours_done": done_s / 3600,
            "hours_total": total_s / 3600,
            "shards_done": shards_done,
            "shards_total": self._shards,
            "x_real_time": seconds / max(elapsed_s, 1e-9),
            "eta_s": elapsed_s * left / new if new else math.nan,
            "elapsed_s": elapsed_s,
        }

    def show(self, numbers: dict[str, float], last: bool = False, stream: TextIO | None = None) -> None:
        """Write the line where it is due: a live one on a terminal, else a plain one every 10 s; `last` always."""
        stream = sys.stderr if stream is None else stream
        live, now = stream.isatty(), self._clock()
        if not last and now - self._shown < (LIVE_EVERY_S if live else LINE_EVERY_S):
            return
        self._shown = now
        text = progress_text(numbers)
        if live:
            print(f"\r\033[K{text}", end="\n" if last else "", file=stream, flush=True)
        else:
            log.info("%s", text)


def progress_text(numbers: dict[str, float]) -> str:
    """The line."""
    return (
        f"tokenize_speech: {numbers['hours_done']:.2f}/{numbers['hours_total']:.2f} h of audio, "
        f"{numbers['shards_done']:.0f}/{numbers['shards_total']:.0f} shards, "
        f"{numbers['x_real_time']:.0f} x real time, ETA {_clock_time(numbers['eta_s'])}"
    )


def _clock_time(time_s: float) -> str:
    if math.isnan(time_s):
        return "unknown"
    minutes, seconds = divmod(math.ceil(time_s), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
