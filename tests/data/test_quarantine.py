"""One table of reasons: whatever the readers say is in it."""

import re
from pathlib import Path

from data.audio import AudioError
from data.manifest import Utterance
from data.quarantine import REASONS, PassedOver, quarantine_row

ROOT = Path(__file__).resolve().parents[2]


def test_every_reason_that_the_code_gives_is_in_the_table():
    sources = [path for package in ("data", "model", "ray_jobs") for path in (ROOT / package).rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    given = set(re.findall(r'(?:AudioError|Problem)\(\s*"([a-z_]+)"', text))
    given |= set(re.findall(r'quarantine_row\(\s*[\w.]+,\s*"([a-z_]+)"', text))
    assert {"missing", "nan", "crash"} <= given
    assert given <= set(REASONS)


def test_a_row_names_the_utterance_and_the_reason():
    row = quarantine_row(Utterance("u", "a.wav"), "nan", "x")
    assert row == {"id": "u", "audio_filepath": "a.wav", "reason": "nan", "detail": "x"}


def test_what_was_passed_over_is_counted_by_reason():
    here, there = PassedOver(), PassedOver()
    here.read, there.read = 5, 4
    assert str(here) == "5 files read, none passed over"
    for reason in ("nan", "missing", "nan"):
        there.add(AudioError(reason, ""))
    here.merge(there)
    assert str(here) == "9 files read, 3 passed over (1 missing, 2 nan)"
