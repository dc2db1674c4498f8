from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.audio import load_audio, write_wav
from data.corpus.steps_config import CtcAlignment, VadSegmentation
from data.manifest import Utterance
from ray_jobs.prepare_part import Outcome, Steps
from ray_jobs.tokenize_plan import runs_of
from tests.tiny_ctc import save_tiny_ctc

RATE = 16000


@pytest.fixture(scope="module")
def aligner_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ctc")
    save_tiny_ctc(path)
    return str(path)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, real_audio: Path) -> Path:
    """long.wav: 8 s of silence before and after each of two recordings; silence.wav; short.wav."""
    folder = tmp_path_factory.mktemp("recordings")
    first, second = (
        load_audio(str(real_audio / "read" / "ljspeech" / f"LJ001-000{number}.wav"), RATE) for number in (2, 4)
    )
    quiet = np.zeros(8 * RATE, np.float32)
    write_wav(str(folder / "long.wav"), np.concatenate([quiet, first, quiet, second, quiet]), RATE)
    write_wav(str(folder / "silence.wav"), np.concatenate([quiet] * 4), RATE)
    write_wav(str(folder / "short.wav"), first, RATE)
    return folder


def steps(folder: Path, alignment: str | None = None, vad: bool = False, **changes: float) -> Steps:
    return Steps(
        str(folder / "manifest.jsonl"),
        CtcAlignment(kind="ctc", path=alignment, **changes) if alignment else None,
        VadSegmentation(kind="vad", cut_above_s=20.0) if vad else None,
    )


def test_a_long_recording_is_cut_at_its_pauses_into_spans_of_its_file(recordings: Path) -> None:
    parent = Utterance("p", "long.wav", speaker="lj", text="nobody knows where")
    outcome = steps(recordings, vad=True).run([parent])
    assert [child.id for child in outcome.utterances] == [f"p-{index:06d}" for index in range(len(outcome.utterances))]
    assert len(outcome.utterances) >= 2
    first = load_audio(str(recordings / "short.wav"), RATE)
    assert outcome.utterances[0].offset == pytest.approx(8.0, abs=0.3)
    spoken_s = sum(child.duration or 0 for child in outcome.utterances if child.offset < 9 + len(first) / RATE)
    assert spoken_s == pytest.approx(len(first) / RATE, abs=0.6)
    for child in outcome.utterances:
        assert (child.audio_filepath, child.speaker, child.text) == ("long.wav", "lj", None)
        assert child.extra == {"parent": "p"}
        assert np.abs(load_audio(str(recordings / "long.wav"), RATE, child.offset, child.duration)).max() > 0.05
    assert steps(recordings, vad=True).run([parent]) == outcome


def test_a_span_of_a_recording_is_cut_within_itself(recordings: Path) -> None:
    parent = Utterance("p", "long.wav", duration=21.0, offset=7.0)
    children = steps(recordings, vad=True).run([parent]).utterances
    assert children
    assert all(child.offset >= 7.0 and child.offset + (child.duration or 0) <= 28.0 for child in children)


def test_short_recordings_and_music_pass_and_silence_is_quarantined(recordings: Path) -> None:
    short = Utterance("s", "short.wav")
    music = Utterance("m", "long.wav", kind="music")
    outcome = steps(recordings, vad=True).run([short, Utterance("q", "silence.wav"), music, Utterance("x", "no.wav")])
    assert outcome.utterances == [short, music]
    assert [(row["id"], row["reason"]) for row in outcome.quarantine] == [("q", "no_speech"), ("x", "missing")]


def test_words_are_found_where_there_are_none(tmp_path: Path, aligner_folder: str) -> None:
    write_wav(str(tmp_path / "a.wav"), np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    known = Utterance("known", "a.wav", text="abc", words=(("abc", 0.0, 1.0),))
    unknown = Utterance("unknown", "a.wav", text="ab cab")
    silent = Utterance("silent", "a.wav")
    outcome = steps(tmp_path, aligner_folder).run([known, unknown, silent])
    assert outcome.utterances[0] == known
    assert [word for word, _, _ in outcome.utterances[1].words or ()] == ["ab", "cab"]
    assert outcome.utterances[2] == silent
    assert (outcome.quarantine, outcome.unaligned) == ([], [])


def test_what_cannot_be_aligned_stays_without_words_and_is_listed(tmp_path: Path, aligner_folder: str) -> None:
    write_wav(str(tmp_path / "a.wav"), np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    utterances = [Utterance("a", "a.wav", text="abc " * 90), Utterance("b", "a.wav", text="ñ"), Utterance("c", "none")]
    outcome = steps(tmp_path, aligner_folder).run([*utterances[:2], replace(utterances[2], text="a")])
    assert outcome.utterances == utterances[:2]
    assert [(row["id"], row["reason"]) for row in outcome.unaligned] == [("a", "unaligned"), ("b", "unaligned")]
    assert [(row["id"], row["reason"]) for row in outcome.quarantine] == [("c", "missing")]
    outcome = steps(tmp_path, aligner_folder, max_s=0.5).run([Utterance("d", "a.wav", text="a")])
    assert (len(outcome.utterances), outcome.unaligned[0]["reason"]) == (1, "too_long")


def test_segments_get_the_words_that_the_alignment_found(recordings: Path, aligner_folder: str) -> None:
    parent = Utterance("p", "long.wav", text="abba cab " * 12)
    children = steps(recordings, aligner_folder, vad=True).run([parent]).utterances
    words = [word for child in children for word, _, _ in child.words or ()]
    assert words
    assert [child.text for child in children] == [
        " ".join(word for word, _, _ in child.words) if child.words else None for child in children
    ]


def test_parts_hold_every_utterance_once_in_order_and_about_an_hour() -> None:
    utterances = [Utterance(str(index), "a", duration=100.0) for index in range(100)]
    parts = list(runs_of(utterances))
    assert [utterance for part in parts for utterance in part] == utterances
    assert [len(part) for part in parts] == [36, 36, 28]
    assert [len(part) for part in runs_of(Utterance(str(i), "a") for i in range(65))] == [64, 1]


def test_an_outcome_survives_json() -> None:
    outcome = Outcome([Utterance("a", "a.wav", words=(("x", 0.0, 1.0),), extra={"parent": "p"})], [{"id": "b"}], [])
    assert Outcome.from_json(outcome.to_json()) == outcome
