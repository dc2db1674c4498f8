import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data import audio, storage
from data.audio import AudioError, decode_audio, iter_blocks, load_audio, resample, wav_bytes, write_wav
from data.audio_mp3 import length_is_a_guess
from data.corpus.header import read_header


def tone(duration_s: float = 0.5, sample_rate: int = 16000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(duration_s * sample_rate)) / sample_rate)).astype(np.float32)


def encoded(wave: np.ndarray, sample_rate: int = 16000, format: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, sample_rate, format=format, subtype=subtype)
    return buffer.getvalue()


def reason_of(content: bytes, **options: float) -> str:
    with pytest.raises(AudioError) as caught:
        decode_audio(content, 16000, **options)
    return caught.value.reason


def test_sixteen_bit_samples_come_back_exactly(tmp_path: Path) -> None:
    wave = np.array([0.0, 0.25, -1.0, 32767 / 32768], np.float32)
    write_wav(str(tmp_path / "a.wav"), wave, 16000)
    np.testing.assert_array_equal(load_audio(str(tmp_path / "a.wav"), 16000), wave)


def test_what_is_too_loud_is_clipped() -> None:
    assert decode_audio(wav_bytes(np.array([2.0, -2.0]), 16000), 16000).tolist() == [32767 / 32768, -1.0]


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_every_format_is_resampled_to_mono(format: str) -> None:
    stereo_NC = np.stack([tone(sample_rate=44100)] * 2, axis=1)
    wave = decode_audio(encoded(stereo_NC, 44100, format), 16000)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert abs(len(wave) - 8000) < 1600  # lossy codecs pad
    assert 0.4 < np.abs(wave).max() < 0.6


def test_offset_and_duration_cut_the_span() -> None:
    wave = tone(1.0)
    part = decode_audio(wav_bytes(wave, 16000), 16000, offset_s=0.25, duration_s=0.5)
    np.testing.assert_allclose(part, wave[4000:12000], atol=1e-4)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_audio_inside_another_file_is_read_by_its_bytes(tmp_path: Path, scheme: str) -> None:
    first, second = (wav_bytes(tone(duration_s), 16000) for duration_s in (0.25, 0.5))
    path = str(tmp_path / "a.tar") if scheme == "file" else f"memory://{tmp_path.name}/a.tar"
    storage.write_bytes(path, b"junk" + first + second)
    middle, end = 4 + len(first), 4 + len(first) + len(second)
    assert len(load_audio(f"{path}#bytes=4-{middle}", 16000)) == 4000
    assert len(load_audio(f"{path}#bytes={middle}-{end}", 16000, offset_s=0.25)) == 4000
    for span, reason in [(f"{middle}-{end + 1}", "unreadable"), ("9-9", "empty"), ("9-4", "empty"), ("0-9", "not_")]:
        with pytest.raises(AudioError, match=reason):
            load_audio(f"{path}#bytes={span}", 16000)
    with pytest.raises(AudioError, match="missing"):
        load_audio(f"{path}.gz#bytes=0-9", 16000)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_file_much_longer_than_is_stated_for_the_whole_of_it_is_refused(tmp_path: Path, kind: str) -> None:
    """As a recording at 16 kHz whose header says 8 kHz."""
    path = str(tmp_path / "a")
    Path(path).write_bytes(encoded(np.tile(tone(1.0), 2), 16000, format=kind))
    with pytest.raises(AudioError, match=r"^longer_than_stated: 1.000 s are stated for the file, whose header says 2"):
        load_audio(path, 16000, duration_s=1.0, whole_file=True)
    with pytest.raises(AudioError, match="longer_than_stated"):
        list(iter_blocks(path, 16000, duration_s=1.0, whole_file=True))
    assert len(load_audio(path, 16000, duration_s=1.0)) == 16000
    assert len(load_audio(path, 16000, duration_s=1.92, whole_file=True)) == 30720


def test_one_sample_stays_one_sample_at_least() -> None:
    assert len(decode_audio(encoded(np.array([0.5]), 48000), 16000)) >= 1
    assert resample(np.zeros(0, np.float32), 48000, 16000).size == 0


def test_the_reasons_name_what_is_wrong(tmp_path: Path) -> None:
    good = wav_bytes(tone(), 16000)
    assert reason_of(b"") == "empty"
    assert reason_of(encoded(np.zeros(0, np.float32))) == "empty"
    assert reason_of(good, offset_s=3.0) == "empty"
    assert reason_of(b"this is no audio at all" * 50) == "not_audio"
    assert reason_of(encoded(np.array([0.1, np.nan]), subtype="FLOAT")) == "nan"
    assert reason_of(encoded(np.array([0.1, np.inf]), subtype="FLOAT")) == "nan"
    assert reason_of(encoded(np.zeros((10, 9), np.float32))) == "bad_channels"
    assert reason_of(encoded(tone(), 500_000)) == "bad_rate"
    assert reason_of(encoded(tone(), 100)) == "bad_rate"
    assert reason_of(good, max_duration_s=0.2) == "too_long"
    assert reason_of(good, duration_s=99.0, max_duration_s=5.0) == "too_long"
    with pytest.raises(AudioError, match="missing"):
        load_audio(str(tmp_path / "none.wav"), 16000)
    with pytest.raises(AudioError, match="not_audio"):
        load_audio(str(tmp_path), 16000)


def test_many_decoded_bytes_are_refused_whatever_the_duration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "MAX_DECODED_BYTES", 1000)
    assert reason_of(wav_bytes(tone(), 16000)) == "too_large"


@pytest.mark.parametrize("known", [True, False])
def test_a_large_object_behind_a_url_is_not_fetched_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    asked: list[int] = []

    class Endless(io.RawIOBase):
        size = 10**12 if known else None

        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            return bytes(min(max(size, 0), 600))

    monkeypatch.setattr(audio, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(audio.storage, "open_seekable", lambda url: Endless())
    with pytest.raises(AudioError, match="too_large"):
        load_audio("memory://endless.wav", 16000)
    assert asked == ([] if known else [1001, 401])


@pytest.mark.parametrize("stated", [2**31 - 1, 2**32 - 1])
def test_the_placeholder_of_a_writer_that_could_not_go_back_is_no_promise(stated: int) -> None:
    content = bytearray(wav_bytes(tone(0.1), 16000))
    content[40:44] = stated.to_bytes(4, "little")
    assert len(decode_audio(bytes(content), 16000)) == 1600


def test_a_header_that_lies_about_its_length_is_found_out() -> None:
    content = bytearray(wav_bytes(tone(1.0), 16000))
    content[40:44] = (2 * 16000 * 3600).to_bytes(4, "little")
    assert reason_of(bytes(content)) == "truncated"


@pytest.mark.parametrize("format", ["WAV", "RF64", "W64", "AIFF", "OGG", "MP3"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_was_cut_is_not_a_shorter_recording(format: str, share: float) -> None:
    content = encoded(
        tone(4.0) + 0.1 * np.random.default_rng(0).standard_normal(64000).astype(np.float32), 16000, format
    )
    assert len(decode_audio(content, 16000)) >= 64000
    assert reason_of(content[: int(share * len(content))]) == "truncated"


NOISE = 0.1 * np.random.default_rng(0).standard_normal(64000).astype(np.float32)


def test_samples_that_a_header_leaves_unsaid_are_not_left_out_unseen() -> None:
    content = bytearray(wav_bytes(NOISE, 16000))
    content[40:44] = (len(content) // 2).to_bytes(4, "little")
    assert reason_of(bytes(content)) == "truncated"
    filling = bytes(range(1, 251)) * 36
    chunks = [name + (9000).to_bytes(4, "little") + filling for name in (b"LIST", b"_PMX", b"(c) ", b"ID3\x04")]
    for behind in (*chunks, bytes(9000), b"\xff" * 999):
        assert len(decode_audio(wav_bytes(NOISE, 16000) + behind, 16000)) == 64000


def test_recordings_one_behind_the_other_are_no_single_one() -> None:
    mp3 = encoded(NOISE, format="MP3")
    assert reason_of(mp3 + mp3) == "truncated"
    assert len(decode_audio(mp3 + b"TAG" + b"a title".ljust(125), 16000)) == 64000
    ogg = bytearray(encoded(NOISE, format="OGG"))
    other = ogg.replace(ogg[14:18], b"\x01\x02\x03\x04")  # of another serial number
    assert reason_of(bytes(ogg + other)) == "truncated"


def test_an_mp3_of_varying_bit_rate_is_read_to_its_end_without_a_tag_that_counts_its_frames(tmp_path: Path) -> None:
    loud_then_silent = np.concatenate([NOISE, np.zeros(64000), NOISE]).astype(np.float32)
    content = encoded(loud_then_silent, format="MP3")
    assert b"Xing" in content
    (tmp_path / "a.mp3").write_bytes(content.replace(b"Xing", bytes(4)))
    assert read_header(str(tmp_path / "a.mp3")).num_samples is None
    found = load_audio(str(tmp_path / "a.mp3"), 16000)
    assert len(found) == pytest.approx(192000, abs=3000)
    assert np.abs(found[-30000:]).mean() > 0.05
    assert not length_is_a_guess(io.BytesIO(content))


def test_a_flac_stream_of_open_length_is_read_to_its_end(tmp_path: Path) -> None:
    """As an encoder leaves it that wrote to a pipe."""
    content = bytearray(encoded(NOISE, format="FLAC", subtype="PCM_24"))
    whole = decode_audio(bytes(content), 16000)
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])
    (tmp_path / "a.flac").write_bytes(content)
    assert read_header(str(tmp_path / "a.flac")).num_samples is None
    np.testing.assert_array_equal(load_audio(str(tmp_path / "a.flac"), 16000), whole)
    np.testing.assert_array_equal(load_audio(str(tmp_path / "a.flac"), 16000, 1.0, 0.5), whole[16000:24000])


def test_a_span_that_the_file_cannot_fill_is_truncated_and_rounding_is_not(tmp_path: Path) -> None:
    path = tmp_path / "one.wav"
    path.write_bytes(wav_bytes(tone(1.0), 16000))
    assert len(load_audio(str(path), 16000, 0.5, 0.55)) == 8000
    with pytest.raises(AudioError, match=r"truncated: 2\.00 s are stated, and the sound ends after 1\.00 s"):
        load_audio(str(path), 16000, 0.0, 2.0)


def test_a_rate_of_zero_in_the_header_is_no_crash() -> None:
    content = bytearray(wav_bytes(tone(0.1), 16000))
    content[24:28] = bytes(4)
    assert reason_of(bytes(content)) in ("bad_rate", "not_audio")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]), st.data())
def test_broken_files_give_sound_or_a_reason(format: str, data: st.DataObject) -> None:
    content = bytearray(encoded(tone(0.1), 16000, format))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    outcome: AudioError | np.ndarray
    try:
        outcome = decode_audio(bytes(content), 16000)
    except AudioError as error:
        outcome = error
    if isinstance(outcome, AudioError):
        assert outcome.reason
        assert outcome.detail
    else:
        assert outcome.size
        assert np.isfinite(outcome).all()


@pytest.mark.parametrize("scheme", ["file", "memory"])
@pytest.mark.parametrize(("from_rate", "to_rate"), [(16000, 16000), (44100, 16000), (8000, 24000)])
def test_blocks_are_the_whole_in_pieces(tmp_path: Path, scheme: str, from_rate: int, to_rate: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * from_rate).astype(np.float32)
    path = str(tmp_path / "a.wav") if scheme == "file" else f"memory://{tmp_path.name}/a.wav"
    write_wav(path, noise, from_rate)
    blocks = list(iter_blocks(path, to_rate, offset_s=0.5))
    whole = load_audio(path, to_rate, offset_s=0.5)
    assert len(blocks) > 1
    assert abs(sum(map(len, blocks)) - len(whole)) <= 1
    shared = min(sum(map(len, blocks)), len(whole))
    np.testing.assert_allclose(np.concatenate(blocks)[:shared], whole[:shared], atol=2e-4)


def test_a_storage_that_fails_midway_is_no_end_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def readinto(self, buffer: object) -> int:
            if self.tell() > 100_000:
                raise OSError("connection reset")
            return super().readinto(buffer)  # type: ignore[arg-type]

    monkeypatch.setattr(storage, "open_seekable", lambda url: Failing(wav_bytes(np.zeros(200_000), 16000)))
    with pytest.raises(AudioError, match="unreadable: connection reset"):
        load_audio("memory://a.wav", 16000, offset_s=0.1)
    with pytest.raises(AudioError, match="unreadable: connection reset"):
        list(iter_blocks("memory://a.wav", 16000))


def test_a_refusal_reads_the_same_in_every_run():
    details = []
    for _ in range(2):
        with pytest.raises(AudioError) as refused:
            decode_audio(b"no audio at all", 16000)
        details.append(refused.value.detail)
    assert details[0] == details[1]
    assert "0x" not in details[0]
