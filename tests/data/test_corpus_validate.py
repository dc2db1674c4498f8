"""The check of audio: cheap by headers, deep by decoding, one answer per utterance."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import storage
from data.corpus import validate
from data.corpus.header import read_header
from data.corpus.validate import Facts, Finding, Problem, check, check_all, check_content
from data.manifest import Utterance

RATE = 8000


def utterance(path: str, offset: float = 0.0, duration: float | None = None) -> Utterance:
    return Utterance(id=path, audio_filepath=path, offset=offset, duration=duration)


def tone(path: Path, seconds: float = 1.0) -> Path:
    soundfile.write(path, 0.1 * np.sin(np.arange(int(seconds * RATE)) * 0.1), RATE)
    return path


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_cheap_and_deep_agree_on_good_files(tmp_path: Path, ending: str, deep: bool) -> None:
    tone(tmp_path / f"a.{ending}")
    finding = check(utterance(f"a.{ending}"), str(tmp_path), deep)
    assert finding == Facts(1.0, RATE, 1)
    part = check(utterance(f"a.{ending}", offset=0.25, duration=0.5), str(tmp_path), deep)
    assert part == Facts(0.5, RATE, 1)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"not audio at all", "not_audio"), (None, "missing"), ("folder", "not_audio")],
)
def test_problems_that_headers_tell(tmp_path: Path, content: object, reason: str, deep: bool) -> None:
    if content == "folder":
        (tmp_path / "a.wav").mkdir()
    elif isinstance(content, bytes):
        (tmp_path / "a.wav").write_bytes(content)
    finding = check(utterance("a.wav"), str(tmp_path), deep)
    assert isinstance(finding, Problem)
    assert finding.reason == reason


def test_urls_are_fetched_by_the_deep_check_alone(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    there, gone = utterance(f"file://{tmp_path}/a.wav"), utterance(f"file://{tmp_path}/b.wav")
    assert check(gone, "", deep=False) == Facts()
    assert check(there, "", deep=True) == Facts(1.0, RATE, 1)
    finding = check(gone, "", deep=True)
    assert isinstance(finding, Problem)
    assert finding.reason == "missing"


def test_a_storage_that_fails_while_a_header_is_read_costs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.RawIOBase):
        def readinto(self, buffer: object) -> int:
            raise RuntimeError("connection lost")

        def seek(self, offset: int, whence: int = 0) -> int:
            return 0

    monkeypatch.setattr(validate.storage, "open_seekable", lambda url: Failing())
    finding = check(utterance("memory://a.wav"), "", deep=True)
    assert finding == Problem("unreadable", "connection lost")


def test_what_only_decoding_tells(tmp_path: Path) -> None:
    broken = tone(tmp_path / "broken.flac", 20.0)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    for name in ("broken.flac", "nan.wav"):
        assert isinstance(check(utterance(name), str(tmp_path), deep=False), Facts)
        assert isinstance(check(utterance(name), str(tmp_path), deep=True), Problem)


@pytest.mark.parametrize("deep", [False, True])
def test_a_span_past_the_end_is_empty(tmp_path: Path, deep: bool) -> None:
    tone(tmp_path / "a.wav")
    after = check(utterance("a.wav", offset=1.5), str(tmp_path), deep)
    assert isinstance(after, Problem)
    assert after.reason == "empty"


def test_a_span_across_the_end_is_a_warning_by_the_header_and_truncated_by_decoding(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    spoken = utterance("a.wav", offset=0.5, duration=2.0)
    decoded = check(spoken, str(tmp_path), deep=True)
    assert isinstance(decoded, Problem)
    assert decoded.reason == "truncated"
    across = check(spoken, str(tmp_path), deep=False)
    assert isinstance(across, Facts)
    assert across.duration_s == pytest.approx(0.5)
    assert across.warning
    assert across.warning.reason == validate.SHORTER


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("ending", ["wav", "ogg", "mp3", "aiff"])
def test_a_cut_file_is_no_shorter_recording_to_the_header_check_either(tmp_path: Path, ending: str, deep: bool) -> None:
    """What is there would otherwise be filled in as its length, and nobody would miss the rest later."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE)
    soundfile.write(tmp_path / f"a.{ending}", noise, RATE)
    content = (tmp_path / f"a.{ending}").read_bytes()
    (tmp_path / f"a.{ending}").write_bytes(content[: len(content) // 2])
    for offset in (0.0, 0.5):
        found = check(utterance(f"a.{ending}", offset), str(tmp_path), deep)
        assert isinstance(found, Problem)
        assert found.reason == "truncated"
    assert isinstance(check(utterance(f"a.{ending}", 0.1, 0.3), str(tmp_path), deep), Facts)  # it is there


def test_a_range_of_a_file_and_bytes_are_checked_like_a_file(tmp_path: Path) -> None:
    content = tone(tmp_path / "a.flac").read_bytes()
    (tmp_path / "b.tar").write_bytes(b"x" * 100 + content + b"y" * 50)
    for deep in (False, True):
        ranged = utterance(f"b.tar#bytes=100-{100 + len(content)}")
        assert check(ranged, str(tmp_path), deep) == Facts(1.0, RATE, 1)
    far = utterance(f"file://{tmp_path}/b.tar#bytes=100-{100 + len(content)}")
    assert check(far, "", deep=True) == Facts(1.0, RATE, 1)
    assert check_content(content, utterance("memory")) == Facts(1.0, RATE, 1)
    past = check(utterance(f"b.tar#bytes=100-{1000 + len(content)}"), str(tmp_path), deep=False)
    assert isinstance(past, Problem)
    assert past.reason == "unreadable"


def test_a_container_that_libsndfile_does_not_know_is_read_by_another(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    header = read_header(str(tmp_path / "a.m4a"))
    assert (header.sample_rate, header.channels) == (16000, 1)
    assert header.num_samples == pytest.approx(16000, abs=3000)


@pytest.mark.parametrize("deep", [False, True])
def test_all_are_answered_in_order_and_open_lengths_filled_in(tmp_path: Path, deep: bool) -> None:
    for number in range(5):
        tone(tmp_path / f"{number}.wav", 0.5 + number / 10)
    rows = [utterance(f"{number}.wav") for number in range(6)]
    rows[1] = utterance("1.wav", duration=0.25).as_part_of_file()
    checked = check_all(rows, str(tmp_path), deep, num_workers=2)
    assert [item.duration for item in checked.utterances] == [0.5, 0.25, 0.7, 0.8, 0.9]
    assert [row["reason"] for row in checked.quarantine] == ["missing"]
    assert all(facts.sample_rate == RATE for facts in checked.facts)


def _die_on_two(item: Utterance, root: str, deep: bool) -> Finding:
    if item.id.startswith("2"):
        os._exit(1)
    return Facts(1.0, RATE, 1)


def test_a_file_that_kills_its_decoder_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    # Fork, so that the processes see the check that dies; the job itself spawns.
    monkeypatch.setattr(validate, "check", _die_on_two)
    monkeypatch.setattr(validate, "get_context", lambda _: multiprocessing.get_context("fork"))
    monkeypatch.setattr(validate, "_CHUNK_UTTERANCES", 3)
    checked = check_all([utterance(f"{number}.wav") for number in range(8)], str(tmp_path), True, num_workers=2)
    assert [row["id"] for row in checked.quarantine] == ["2.wav"]
    assert checked.quarantine[0]["reason"] == "crash"
    assert len(checked.utterances) == 7


def _die_twice_on_three(item: Utterance, root: str, deep: bool) -> Finding:
    """Like a process that dies of what it read before: once in the chunk, once more when asked alone."""
    if item.id.startswith("3"):
        for number in range(2):
            try:
                (Path(root) / f"died-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os._exit(1)
    return Facts(1.0, RATE, 1)


def test_a_process_that_died_of_an_earlier_file_blames_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing

    monkeypatch.setattr(validate, "check", _die_twice_on_three)
    monkeypatch.setattr(validate, "get_context", lambda _: multiprocessing.get_context("fork"))
    checked = check_all([utterance(f"{number}.wav") for number in range(5)], str(tmp_path), True, num_workers=1)
    assert (tmp_path / "died-1").exists()
    assert checked.quarantine == []
    assert len(checked.utterances) == 5


@pytest.mark.parametrize("deep", [False, True])
def test_a_rate_that_is_stated_too_low_makes_a_recording_longer_than_its_row_says(tmp_path: Path, deep: bool) -> None:
    for name in ("lies.wav", "cut.wav", "true.wav"):
        soundfile.write(tmp_path / name, 0.1 * np.sin(np.arange(2 * RATE) * 0.1), RATE // 2 if name[0] == "l" else RATE)
    rows = [
        utterance("lies.wav", duration=2.0),  # the header says half the rate: 4 s
        utterance("true.wav", duration=1.95),  # silence at the end, perhaps
        utterance("cut.wav", duration=1.0).as_part_of_file(),
    ]
    checked = check_all(rows, str(tmp_path), deep, num_workers=1)
    [row] = checked.quarantine
    assert (row["id"], row["reason"]) == ("lies.wav", "longer_than_stated")
    assert "2.000 s are stated for the file, whose header says 4.000 s" in row["detail"]
    assert f"rate of {RATE // 2} Hz too low" in row["detail"]
    assert checked.warnings() == []
    high = check(utterance("cut.wav", duration=4.0), str(tmp_path), deep)  # as if stated at twice the rate
    assert (high.reason if isinstance(high, Problem) else high.warning and high.warning.reason) in (
        "truncated",
        validate.SHORTER,
    )


def test_headers_of_real_recordings_say_what_decoding_finds(real_audio: Path) -> None:
    manifest = real_audio / "read" / "manifest.jsonl"
    rows = [Utterance.from_row({**row, "duration": None}) for row in storage.read_jsonl(manifest)]
    chosen = {Path(row.audio_filepath).suffix: row for row in rows}
    assert {".wav", ".flac", ".mp3", ".ogg"} <= set(chosen)
    for row in chosen.values():
        cheap, deep = (check(row, str(manifest.parent), deep) for deep in (False, True))
        assert isinstance(cheap, Facts)
        assert isinstance(deep, Facts)
        assert cheap.duration_s == pytest.approx(deep.duration_s, abs=0.05)
        assert (cheap.sample_rate, cheap.channels) == (deep.sample_rate, deep.channels)
