"""Audio in and out, bounded: no file can make the reader crash, hang or fill the memory."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import soundfile
import soxr

from data import storage
from data.audio_source import AudioError as AudioError  # known by this name everywhere
from data.audio_source import SoundFileSource, Source, Watched, read_by_others
from data.timing import samples_to_seconds, seconds_to_samples

MAX_DURATION_S = 600.0
MAX_DECODED_BYTES = 256 * 2**20  # a small lying header must not ask for more, whatever the duration says
MAX_FILE_BYTES = 512 * 2**20  # of what is held in memory whole
MAX_STREAMED_S = 24 * 3600.0
MAX_STREAMED_BYTES = 16 * 2**30  # of a file that is read block by block
MAX_CHANNELS = 8
MIN_RATE_HZ, MAX_RATE_HZ = 1000, 384_000
FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3"})
TOLERATED_S, TOLERATED_SHORT_SHARE = 0.1, 0.01  # stated durations are rounded, and encoders pad
TOLERATED_LONG_SHARE = 0.05  # what is stated may leave silence out; the rates in use differ by 9 % and more
RANGE = re.compile(r"(?P<path>.+)#bytes=(?P<start>\d+)-(?P<end>\d+)")


def load_audio(
    path: str,
    sample_rate: int,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
    whole_file: bool = False,
) -> np.ndarray:
    """Mono float32 samples (N,) at `sample_rate` of a local file or URL.

    `PATH#bytes=START-END` is the audio in bytes [START, END) of a file, e.g. of an uncompressed tar. `whole_file`:
    `duration_s` is said to be that of the file, and a much longer one is refused.
    Raises AudioError with reason missing, unreadable, too_large, longer_than_stated, or what `decode_audio` names.
    """
    # Of a whole object every byte is needed; of a span only those that the decoder seeks.
    with _open_path(path, whole=not offset_s and duration_s is None) as handle:
        return _decode(handle, sample_rate, offset_s, duration_s, max_duration_s, whole_file)


def iter_blocks(
    path: str,
    sample_rate: int,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_STREAMED_S,
    whole_file: bool = False,
) -> Iterator[np.ndarray]:
    """The samples that `load_audio` gives, in blocks (n,) of some seconds: memory does not grow with the recording.

    Resampled as a stream: against `load_audio` samples differ by rounding alone. Raises AudioError like `load_audio`.
    """
    with _open_path(path, whole=False) as handle, _opened(handle) as source:
        stream: soxr.ResampleStream | None = None
        empty = True
        for block in _mono_blocks(source, offset_s, duration_s, max_duration_s, whole_file):
            empty = False
            if source.rate_hz != sample_rate:
                stream = stream or soxr.ResampleStream(source.rate_hz, sample_rate, 1, dtype="float32")
                block = stream.resample_chunk(block)
            if block.size:
                yield block
        if empty:
            raise AudioError("empty", f"no samples at offset {offset_s} s")
        rest = stream.resample_chunk(np.zeros(0, np.float32), last=True) if stream else np.zeros(0, np.float32)
        if rest.size:
            yield rest


def decode_audio(
    content: bytes,
    sample_rate: int,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> np.ndarray:
    """Mono float32 samples (N,) at `sample_rate` of encoded audio (wav, flac, ogg, mp3, aiff, m4a, webm, aac).

    Raises AudioError with reason empty, not_audio, bad_rate, bad_channels, too_long, too_large, nan, undecodable
    or truncated.
    """
    _check_file_bytes(len(content))
    return _decode(io.BytesIO(content), sample_rate, offset_s, duration_s, max_duration_s)


def resample(wave: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """float32 samples (N,) at another rate; at least one sample stays of any sound."""
    if from_rate == to_rate or not wave.size:
        return wave.astype(np.float32, copy=False)
    resampled = soxr.resample(wave, from_rate, to_rate)
    return (resampled if resampled.size else wave[:1]).astype(np.float32, copy=False)


def wav_bytes(wave: np.ndarray, sample_rate: int) -> bytes:
    """A 16-bit mono WAV file of float samples (N,) in [-1, 1]; what lies outside is clipped."""
    samples = np.clip(np.round(np.asarray(wave, dtype=np.float64) * 32768.0), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def write_wav(path: str, wave: np.ndarray, sample_rate: int) -> None:
    """Write float samples (N,) as a 16-bit mono WAV file to a path or URL."""
    storage.write_bytes(path, wav_bytes(wave, sample_rate))


@contextmanager
def _open_path(path: str, whole: bool) -> Iterator[Any]:
    """A seekable file of a local path, a URL or a range of either; `whole`: every byte will be read."""
    inside = RANGE.fullmatch(path)
    if inside and not os.path.exists(path):  # a file may be called like that
        yield io.BytesIO(read_range(inside["path"], int(inside["start"]), int(inside["end"])))
    elif storage.is_url(path):
        with _open_url(path, whole) as handle:
            yield handle
    elif not os.path.exists(path):
        raise AudioError("missing", f"no file at {path}")
    elif not os.path.isfile(path):
        raise AudioError("not_audio", f"{path} is no regular file")
    else:
        _check_file_bytes(os.path.getsize(path), MAX_STREAMED_BYTES)
        try:
            handle = open(path, "rb")  # noqa: SIM115 (closed below; only opening it may raise what is caught here)
        except OSError as error:
            raise AudioError("unreadable", str(error)) from error
        with handle:
            yield handle


def _open_url(url: str, whole: bool) -> Any:
    try:
        handle = storage.open_seekable(url)
        if not whole:
            return handle
        with handle:
            size_bytes = getattr(handle, "size", None)
            if size_bytes:  # not every server says it
                _check_file_bytes(size_bytes)
            content = handle.read() if size_bytes else _read_at_most(handle, MAX_FILE_BYTES + 1)
    except AudioError:
        raise
    except FileNotFoundError:
        raise AudioError("missing", f"nothing at {url}") from None
    except Exception as error:  # every fsspec backend raises its own kinds
        raise AudioError("unreadable", f"{url}: {error}") from error
    _check_file_bytes(len(content))
    return io.BytesIO(content)


def _read_at_most(handle: Any, num_bytes: int) -> bytes:
    """The first `num_bytes`, or all; a stream may give fewer at a time than it is asked for."""
    content = bytearray()
    while piece := handle.read(num_bytes - len(content)):
        content += piece
        if len(content) >= num_bytes:
            break
    return bytes(content)


def read_range(path: str, start_byte: int, end_byte: int) -> bytes:
    """Bytes [start_byte, end_byte) of a file or URL, all of them. Raises AudioError."""
    _check_file_bytes(end_byte - start_byte)
    try:
        content = storage.read_range(path, start_byte, end_byte)
    except FileNotFoundError:
        raise AudioError("missing", f"no file at {path}") from None
    except Exception as error:  # every fsspec backend raises its own kinds
        raise AudioError("unreadable", f"{path}: {error}") from error
    if len(content) < end_byte - start_byte:
        detail = f"{path} ends before byte {end_byte}: only {len(content)} bytes follow byte {start_byte}"
        raise AudioError("unreadable", detail)
    return content


def _check_file_bytes(size_bytes: int, limit_bytes: int | None = None) -> None:
    limit_bytes = MAX_FILE_BYTES if limit_bytes is None else limit_bytes
    if size_bytes <= 0:
        raise AudioError("empty", "the file has no bytes")
    if size_bytes > limit_bytes:
        raise AudioError("too_large", f"{size_bytes} bytes, at most {limit_bytes} are read")


@contextmanager
def _opened(handle: Any) -> Iterator[Source]:
    """The decoder that knows the format: libsndfile, else FFmpeg's. Raises AudioError not_audio and unreadable."""
    watched = Watched(handle)
    try:
        try:
            sound = soundfile.SoundFile(watched)
        except (soundfile.SoundFileError, ValueError, TypeError) as error:
            from data.audio_container import open_container  # FFmpeg is loaded only for what libsndfile does not know

            # Its whole text holds the handle's address, and the same file must give the same row.
            with open_container(watched, str(getattr(error, "error_string", error))) as container:
                yield container
        else:
            with sound:
                if sound.format not in FORMATS:
                    known = ", ".join(sorted(FORMATS))
                    raise AudioError("not_audio", f"format {sound.format} is not read; give one of {known}")
                other = read_by_others(sound, watched)
                if other is None:
                    yield SoundFileSource(sound, watched)
            if other is not None:
                from data.audio_container import open_container

                with open_container(watched, "", other) as container:
                    yield container
    except AudioError:
        watched.check()  # the better reason
        raise
    watched.check()


def longer_than_stated(there_samples: int | None, duration_s: float | None, rate_hz: int) -> str | None:
    """What is wrong where a file holds much more than the `duration_s` that is stated for it; None where nothing is."""
    if there_samples is None or duration_s is None:
        return None
    there_s = samples_to_seconds(there_samples, rate_hz)
    if there_s - duration_s <= max(TOLERATED_S, TOLERATED_LONG_SHARE * duration_s):
        return None
    return (
        f"{duration_s:.3f} s are stated for the file, whose header says {there_s:.3f} s: is its rate of {rate_hz} Hz "
        "too low? (A row about the beginning of a file has `offset: 0`)"
    )


def _decode(
    handle: Any,
    sample_rate: int,
    offset_s: float,
    duration_s: float | None,
    max_duration_s: float,
    whole_file: bool = False,
) -> np.ndarray:
    with _opened(handle) as source:
        blocks: list[np.ndarray] = []
        decoded_bytes = 0
        for block in _mono_blocks(source, offset_s, duration_s, max_duration_s, whole_file):
            decoded_bytes += block.size * source.channels * 4
            if decoded_bytes > MAX_DECODED_BYTES:
                raise AudioError("too_large", f"decodes to more than {MAX_DECODED_BYTES} bytes")
            blocks.append(block)
    if not blocks:
        raise AudioError("empty", f"no samples at offset {offset_s} s")
    return resample(np.concatenate(blocks), source.rate_hz, sample_rate)


def _mono_blocks(
    source: Source, offset_s: float, duration_s: float | None, max_duration_s: float, whole_file: bool
) -> Iterator[np.ndarray]:
    """Samples (n,) of the asked span block by block, counted while decoding: headers may lie about the length."""
    rate = source.rate_hz
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise AudioError("bad_rate", f"{rate} Hz, expected {MIN_RATE_HZ} to {MAX_RATE_HZ}")
    if not 1 <= source.channels <= MAX_CHANNELS:
        raise AudioError("bad_channels", f"{source.channels} channels, expected 1 to {MAX_CHANNELS}")
    limit = seconds_to_samples(max_duration_s, rate)
    wanted = None if duration_s is None else seconds_to_samples(duration_s, rate)
    if wanted is not None and wanted > limit:
        raise AudioError("too_long", f"{duration_s:.1f} s asked, at most {max_duration_s:.1f} s are read")
    longer = longer_than_stated(source.stated_samples, duration_s, rate) if whole_file else None
    if longer:
        raise AudioError("longer_than_stated", longer)
    total = 0
    for block_NC in source.blocks(seconds_to_samples(offset_s, rate), wanted):
        total += len(block_NC)
        if total > limit:
            raise AudioError("too_long", f"longer than {samples_to_seconds(limit, rate):.1f} s")
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is refused in the next line
            block = block_NC.mean(axis=1, dtype=np.float32)
        if not np.isfinite(block).all():
            raise AudioError("nan", "the samples hold NaN or infinity")
        yield block
    if total:
        _check_end(source, total, wanted)


def _check_end(source: Source, total: int, wanted: int | None) -> None:
    """A recording that is shorter than it should be does not say what its transcript says."""
    rate = source.rate_hz
    if wanted is None:
        detail = source.missing_end()
        if detail:
            raise AudioError("truncated", detail)
    elif wanted - total > seconds_to_samples(TOLERATED_S, rate) + wanted * TOLERATED_SHORT_SHARE:
        asked_s, found_s = samples_to_seconds(wanted, rate), samples_to_seconds(total, rate)
        raise AudioError("truncated", f"{asked_s:.2f} s are stated, and the sound ends after {found_s:.2f} s")
