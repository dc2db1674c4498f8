"""Formats that libsndfile does not read; the files are made here, by the encoders of PyAV."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import audio
from data.audio import AudioError, decode_audio, iter_blocks, load_audio
from data.corpus.header import read_header
from data.corpus.validate import Facts, check
from data.manifest import Utterance

RATE = 48000
FORMATS = {"m4a": ("ipod", "aac"), "mp4": ("mp4", "aac"), "aac": ("adts", "aac"), "alac": ("ipod", "alac")}
FORMATS |= {"webm": ("webm", "libopus"), "mkv": ("matroska", "flac"), "opus_mp4": ("mp4", "libopus")}


def burst(duration_s: float = 1.0, at_s: float = 0.5) -> np.ndarray:
    """A tone that swells and fades around `at_s`."""
    time_N = np.arange(int(duration_s * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * 440 * time_N) * np.exp(-((time_N - at_s) ** 2) * 200)).astype(np.float32)


def encoded(wave_N: np.ndarray, name: str, layout: str = "mono", num_pictures: int = 0, **options: str) -> bytes:
    """Of `num_pictures`, each lasts for a second."""
    container_name, codec = FORMATS[name]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_name, options=options) as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        pictures = container.add_stream("vp8" if name == "webm" else "mpeg4", rate=1) if num_pictures else None
        if pictures:
            pictures.width = pictures.height = 32
            for number in range(num_pictures):
                picture = av.VideoFrame(32, 32, "yuv420p")
                picture.pts = number
                container.mux(pictures.encode(picture))
            container.mux(pictures.encode(None))
        waves_CN = np.repeat(wave_N[None], stream.layout.nb_channels, axis=0)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waves_CN), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        context = stream.codec_context
        fit = av.AudioResampler(context.format, layout, RATE, frame_size=context.frame_size or None)
        for piece in (*fit.resample(frame), *fit.resample(None), None):
            container.mux(stream.encode(piece))
    return buffer.getvalue()


def reason_of(content: bytes, **options: float) -> str:
    with pytest.raises(AudioError) as caught:
        decode_audio(content, 16000, **options)
    return caught.value.reason


@pytest.mark.parametrize("name", FORMATS)
def test_every_container_gives_the_sound_at_its_place(name: str) -> None:
    wave = decode_audio(encoded(burst(), name, "stereo"), RATE)
    assert wave.dtype == np.float32
    assert RATE <= len(wave) <= RATE + 2200  # the last frame may be padded, bare AAC knows nothing of its priming
    power_N = np.convolve(wave**2, np.ones(480), "same")
    late = 1024 if name == "aac" else 0
    assert abs(int(power_N.argmax()) - late - RATE // 2) < 200
    assert 0.4 < np.abs(wave).max() < 0.6
    assert len(decode_audio(encoded(burst(), name), 16000)) == pytest.approx(16000, abs=800)


@pytest.mark.parametrize("name", ["m4a", "webm"])
def test_a_span_is_the_slice_of_the_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(encoded(burst(), name))
    whole = load_audio(str(path), RATE)
    for start, end in [(0, 1000), (7, 8), (20000, 31001), (47000, 48000)]:
        part = load_audio(str(path), RATE, start / RATE, (end - start) / RATE)
        np.testing.assert_array_equal(part, whole[start:end])
    np.testing.assert_array_equal(np.concatenate(list(iter_blocks(str(path), RATE))), whole)


def index_first(content: bytes, path: Path) -> bytes:
    """The same mp4 as players in browsers want it; with its index at the end a cut one does not even open."""
    with av.open(io.BytesIO(content)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["webm", "mkv", "mp4"])
def test_pictures_that_outlast_the_sound_do_not_make_it_longer(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{name}"
    path.write_bytes(encoded(burst(2.0), name, num_pictures=4))
    checked = check(Utterance("a", str(path)), "", deep=False)
    assert isinstance(checked, Facts)
    for duration_s in (checked.duration_s, 2.0):  # as prepare fills it in, as somebody states it
        found = load_audio(str(path), 16000, duration_s=duration_s, whole_file=True)
        assert len(found) == pytest.approx(32000, abs=800)


@pytest.mark.parametrize("name", ["webm", "mkv", "m4a"])
def test_a_container_that_was_cut_says_so_and_a_whole_one_does_not(name: str, tmp_path: Path) -> None:
    whole = encoded(burst(6.0), name)
    whole = index_first(whole, tmp_path / "a.m4a") if name == "m4a" else whole
    assert decode_audio(whole, 16000).size == pytest.approx(96000, abs=2000)
    for share in (0.7, 0.9, 0.99):
        # The half of a packet that a cut leaves is more than FFmpeg's AAC decoder takes.
        assert reason_of(whole[: int(len(whole) * share)]) in ("truncated", "undecodable" if name == "m4a" else "")


@pytest.mark.parametrize("appended", [b"TAG" + b"a title" * 18, b"\xff" * 300])
def test_what_somebody_appended_to_an_mp4_is_no_missing_end(appended: bytes) -> None:
    whole = encoded(burst(), "m4a")
    assert decode_audio(whole + appended, 16000).size == decode_audio(whole, 16000).size


def test_a_stream_of_open_length_is_taken_as_it_is() -> None:
    live = encoded(burst(2.0), "webm", live="1")
    assert decode_audio(live[: int(len(live) * 0.8)], 16000).size > 8000


def test_a_guessed_length_is_no_length(tmp_path: Path) -> None:
    # Loud at first, then silent: by the bit rate of its beginning it would be much shorter, and be cut there.
    noise = np.random.default_rng(0).normal(0, 0.2, 3 * RATE)
    wave = np.concatenate([noise, np.zeros(20 * RATE)]).astype(np.float32)
    (tmp_path / "a.aac").write_bytes(encoded(wave, "aac"))
    assert read_header(str(tmp_path / "a.aac")).num_samples is None
    for deep, duration_s in ((False, None), (True, pytest.approx(23, abs=0.1))):
        found = check(Utterance("a", "a.aac", offset=0.0), str(tmp_path), deep)
        assert isinstance(found, Facts)
        assert found.duration_s == duration_s


def test_the_bounds_hold_for_containers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(burst(), "m4a")
    assert reason_of(content, max_duration_s=0.5) == "too_long"
    assert reason_of(content, offset_s=2.0) == "empty"
    assert reason_of(encoded(burst(), "webm")[:40]) in ("not_audio", "empty")
    monkeypatch.setattr(audio, "MAX_CHANNELS", 1)
    assert reason_of(encoded(burst(), "m4a", "stereo")) == "bad_channels"
    monkeypatch.setattr(audio, "MAX_DECODED_BYTES", 1000)
    assert reason_of(content) == "too_large"


def test_a_playlist_that_names_other_files_is_no_audio() -> None:
    for content in (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", b"ffconcat version 1.0\nfile /etc/hostname\n"):
        assert reason_of(content * 20) == "not_audio"


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["m4a", "webm", "aac"]), st.data())
def test_broken_containers_give_sound_or_a_reason(name: str, data: st.DataObject) -> None:
    content = bytearray(BROKEN.setdefault(name, encoded(burst(0.1, 0.05), name)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    outcome: AudioError | np.ndarray
    try:
        outcome = decode_audio(bytes(content), 16000)
    except AudioError as error:
        outcome = error
    if isinstance(outcome, AudioError):
        assert outcome.reason in ("not_audio", "empty", "undecodable", "bad_rate", "bad_channels", "nan", "truncated")
    else:
        assert outcome.size
        assert np.isfinite(outcome).all()


BROKEN: dict[str, bytes] = {}
