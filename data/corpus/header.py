"""What an audio file says about itself, without decoding it: a file, a range of one, or bytes in memory."""

import io
import os
from dataclasses import dataclass
from typing import Any

import soundfile

from data import storage
from data.audio import FORMATS, MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, RANGE, read_range
from data.audio_end import missing_end
from data.audio_source import AudioError, Watched, read_by_others


@dataclass(frozen=True, slots=True)
class Header:
    """Rate in Hz, channels, and samples per channel as far as the header says."""

    sample_rate: int
    channels: int
    num_samples: int | None


class FileRange(io.RawIOBase):
    """Bytes [start, end) of a local file as a file of its own, read only where it is looked at."""

    def __init__(self, path: str, start_byte: int, end_byte: int) -> None:
        super().__init__()
        self._file = open(path, "rb")  # noqa: SIM115 (closed by close)
        self._start = start_byte
        self._size = end_byte - start_byte
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Like a file's."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        """Like a file's."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Like a file's."""
        wanted = min(len(buffer), max(self._size - self._position, 0))
        self._file.seek(self._start + self._position)
        content = self._file.read(wanted)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        """Close the file below as well."""
        self._file.close()
        super().close()


def read_header(source: str | bytes, to_the_end: bool = False) -> Header:
    """The header of a path, URL, `PATH#bytes=START-END` of either, or encoded audio.

    Raises AudioError with reason missing, empty, not_audio, unreadable, bad_rate or bad_channels; with truncated for a
    file that is wanted `to_the_end` and lacks it.
    """
    with _open(source) as handle:
        watched = Watched(handle)
        try:
            header = _any_header(watched)
            lacking = missing_end(watched) if to_the_end else None
        except AudioError:
            watched.check()  # the better reason
            raise
        watched.check()
    if not MIN_RATE_HZ <= header.sample_rate <= MAX_RATE_HZ:
        raise AudioError("bad_rate", f"{header.sample_rate} Hz, expected {MIN_RATE_HZ} to {MAX_RATE_HZ}")
    if not 1 <= header.channels <= MAX_CHANNELS:
        raise AudioError("bad_channels", f"{header.channels} channels, expected 1 to {MAX_CHANNELS}")
    if lacking:
        raise AudioError("truncated", lacking)
    return header


def _open(source: str | bytes) -> Any:
    if isinstance(source, bytes):
        return _filled(len(source), lambda: io.BytesIO(source))
    inside = RANGE.fullmatch(source)
    if storage.is_url(source):
        if inside:
            return io.BytesIO(read_range(inside["path"], int(inside["start"]), int(inside["end"])))
        return _open_url(source)
    ranged = inside if inside and not os.path.exists(source) else None
    path = ranged["path"] if ranged else source
    if not os.path.exists(path):
        raise AudioError("missing", f"no file at {path}")
    if not os.path.isfile(path):
        raise AudioError("not_audio", f"{path} is no regular file")
    size = os.path.getsize(path)
    try:
        if not ranged:
            return _filled(size, lambda: open(path, "rb"))  # the caller's `with` closes it
        start, end = int(ranged["start"]), int(ranged["end"])
        if end > size:
            raise AudioError("unreadable", f"{path} has {size} bytes and ends before byte {end}")
        return _filled(end - start, lambda: FileRange(path, start, end))
    except OSError as error:
        raise AudioError("unreadable", str(error)) from error


def _open_url(url: str) -> Any:
    try:
        return storage.open_seekable(url)
    except FileNotFoundError:
        raise AudioError("missing", f"nothing at {url}") from None
    except Exception as error:  # every fsspec backend raises its own kinds
        raise AudioError("unreadable", f"{url}: {error}") from error


def _filled(size_bytes: int, opened: Any) -> Any:
    if size_bytes <= 0:
        raise AudioError("empty", "the file has no bytes")
    return opened()


def _any_header(handle: Any) -> Header:
    """By libsndfile, else by FFmpeg. Raises AudioError not_audio where neither knows the format."""
    try:
        with soundfile.SoundFile(handle) as sound:
            if sound.format not in FORMATS:
                raise AudioError("not_audio", f"format {sound.format} is not read; give one of {sorted(FORMATS)}")
            other = read_by_others(sound, handle)
            if other is None:
                return Header(sound.samplerate, sound.channels, sound.frames)
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        if isinstance(error, AudioError):
            raise
        # Its whole text holds the handle's address, and the same file must give the same row.
        return _container_header(handle, str(getattr(error, "error_string", error)))
    return _container_header(handle, "", other)


def _container_header(handle: Any, refusal: str, name: str | None = None) -> Header:
    """Of m4a, webm and their like: the first frame's word on the rate, the container's on the length."""
    from data.audio_container import open_container  # loads FFmpeg

    with open_container(handle, refusal, name) as source:
        return Header(source.rate_hz, source.channels, source.stated_samples)
