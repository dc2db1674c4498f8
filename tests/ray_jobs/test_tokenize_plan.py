"""Audio that jobs read is decoded ahead of their work, within a bound and in order."""

import threading

import numpy as np
import pytest

from data.audio import AudioError
from data.manifest import Utterance
from data.quarantine import PassedOver
from ray_jobs import tokenize_plan
from ray_jobs.tokenize_plan import usable_waves

UTTERANCES = [Utterance(f"u{i}", f"{i}.wav", 30.0) for i in range(9)]


def test_files_are_decoded_while_the_caller_works_and_only_so_many(monkeypatch):
    begun = [threading.Event() for _ in UTTERANCES]

    def load(manifest_path, utterance, sample_rate, max_duration_s):
        number = int(utterance.id[1:])
        begun[number].set()
        if number == 3:
            raise AudioError("nan", "no number")
        return np.full(2, number, np.float32)

    monkeypatch.setattr(tokenize_plan, "load_wave", load)
    passed = PassedOver()
    waves = usable_waves("m", UTTERANCES, 16000, 600.0, passed, threads=2)
    assert next(waves)[0].id == "u0"
    assert all(begun[number].wait(10) for number in range(1, 4))  # 2 threads hold 2 x 60 s: four of 30 s
    assert not any(begun[number].is_set() for number in range(4, 9))
    rest = [(utterance.id, wave_N.tolist()) for utterance, wave_N in waves]
    assert rest == [(f"u{i}", [i, i]) for i in (1, 2, 4, 5, 6, 7, 8)]
    assert str(passed) == "9 files read, 1 passed over (1 nan)"


def test_an_error_of_ours_is_no_bad_file(monkeypatch):
    def load(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(tokenize_plan, "load_wave", load)
    with pytest.raises(ZeroDivisionError):
        list(usable_waves("m", UTTERANCES, 16000, 600.0, PassedOver()))
