"""Audio in and out, bounded: no file can make the reader crash, hang or fill the memory."""

import io
import os
import re
from typing import Any

import numpy as np
import soundfile
import soxr

from data import storage
from data.timing import samples_to_seconds, seconds_to_samples

MAX_DURATION_S = 600.0
MAX_DECODED_BYTES = 256 * 2**20  # a small lying header must not ask for more, whatever the duration says
MAX_FILE_BYTES = 512 * 2**20
MAX_CHANNELS = 8
MIN_RATE_HZ, MAX_RATE_HZ = 1000, 384_000
FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3"})
_BLOCK_FRAMES = 1 << 16
_RANGE = re.compile(r"(?P<path>.+)#bytes=(?P<start>\d+)-(?P<end>\d+)")


class AudioError(ValueError):
    """Why a file is no usable audio: a short `reason` code for quarantine and a `detail` for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def load_audio(
    path: str,
    sample_rate: int,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> np.ndarray:
    """Mono float32 samples (N,) at `sample_rate` of a local file or URL.

    `PATH#bytes=START-END` is the audio in bytes [START, END) of a file, e.g. of an uncompressed tar.
    Raises AudioError with reason missing, unreadable, too_large, or what `decode_audio` names.
    """
    inside = _RANGE.fullmatch(path)
    if inside and not os.path.exists(path):  # a file may be called like that
        content = _read_range(inside["path"], int(inside["start"]), int(inside["end"]))
        return decode_audio(content, sample_rate, offset_s, duration_s, max_duration_s)
    if storage.is_url(path):
        return decode_audio(_download(path), sample_rate, offset_s, duration_s, max_duration_s)
    if not os.path.exists(path):
        raise AudioError("missing", f"no file at {path}")
    if not os.path.isfile(path):
        raise AudioError("not_audio", f"{path} is no regular file")
    _check_file_bytes(os.path.getsize(path))
    try:
        with open(path, "rb") as handle:
            return _decode(handle, sample_rate, offset_s, duration_s, max_duration_s)
    except OSError as error:
        raise AudioError("unreadable", str(error)) from error


def decode_audio(
    content: bytes,
    sample_rate: int,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> np.ndarray:
    """Mono float32 samples (N,) at `sample_rate` of encoded audio (wav, flac, ogg, mp3, aiff).

    Raises AudioError with reason empty, not_audio, bad_rate, bad_channels, too_long, too_large, nan or undecodable.
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


def _read_range(path: str, start_byte: int, end_byte: int) -> bytes:
    """Bytes [start_byte, end_byte) of a file or URL, all of them."""
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


def _download(url: str) -> bytes:
    try:
        return storage.read_bytes(url)
    except FileNotFoundError:
        raise AudioError("missing", f"nothing at {url}") from None
    except Exception as error:  # every fsspec backend raises its own kinds
        raise AudioError("unreadable", f"{url}: {error}") from error


def _check_file_bytes(size_bytes: int) -> None:
    if size_bytes <= 0:
        raise AudioError("empty", "the file has no bytes")
    if size_bytes > MAX_FILE_BYTES:
        raise AudioError("too_large", f"{size_bytes} bytes, at most {MAX_FILE_BYTES} are read")


def _decode(
    handle: Any, sample_rate: int, offset_s: float, duration_s: float | None, max_duration_s: float
) -> np.ndarray:
    try:
        sound = soundfile.SoundFile(handle)
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        raise AudioError("not_audio", str(error)) from error
    with sound:
        _check_header(sound)
        wave = _read_mono(sound, offset_s, duration_s, max_duration_s)
        from_rate = sound.samplerate
    if not wave.size:
        raise AudioError("empty", f"no samples at offset {offset_s} s")
    if not np.isfinite(wave).all():
        raise AudioError("nan", "the samples hold NaN or infinity")
    return resample(wave, from_rate, sample_rate)


def _check_header(sound: soundfile.SoundFile) -> None:
    if sound.format not in FORMATS:
        raise AudioError("not_audio", f"format {sound.format} is not read; give one of {', '.join(sorted(FORMATS))}")
    if not MIN_RATE_HZ <= sound.samplerate <= MAX_RATE_HZ:
        raise AudioError("bad_rate", f"{sound.samplerate} Hz, expected {MIN_RATE_HZ} to {MAX_RATE_HZ}")
    if not 1 <= sound.channels <= MAX_CHANNELS:
        raise AudioError("bad_channels", f"{sound.channels} channels, expected 1 to {MAX_CHANNELS}")


def _read_mono(
    sound: soundfile.SoundFile, offset_s: float, duration_s: float | None, max_duration_s: float
) -> np.ndarray:
    """Samples (N,) of the asked span, counted while decoding: headers may lie about the length."""
    rate = sound.samplerate
    limit = seconds_to_samples(max_duration_s, rate)
    wanted = None if duration_s is None else seconds_to_samples(duration_s, rate)
    if wanted is not None and wanted > limit:
        raise AudioError("too_long", f"{duration_s:.1f} s asked, at most {max_duration_s:.1f} s are read")
    blocks: list[np.ndarray] = []
    total = 0
    try:
        start = seconds_to_samples(offset_s, rate)
        if start and start >= sound.frames:
            return np.zeros(0, np.float32)
        if start:
            sound.seek(start)
        while wanted is None or total < wanted:
            ask = _BLOCK_FRAMES if wanted is None else min(_BLOCK_FRAMES, wanted - total)
            block_NC = sound.read(ask, dtype="float32", always_2d=True)
            if not len(block_NC):
                break
            total += len(block_NC)
            if total > limit:
                raise AudioError("too_long", f"longer than {samples_to_seconds(limit, rate):.1f} s")
            if total * sound.channels * 4 > MAX_DECODED_BYTES:
                raise AudioError("too_large", f"decodes to more than {MAX_DECODED_BYTES} bytes")
            blocks.append(block_NC.mean(axis=1, dtype=np.float32))
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError("undecodable", str(error)) from error
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
