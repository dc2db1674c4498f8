"""m4a, mp4, webm, mkv and bare AAC through FFmpeg (PyAV): what libsndfile does not read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import av.logging
import numpy as np

from data.audio_end import missing_end
from data.audio_source import AudioError, Source
from data.timing import seconds_to_samples

_PROBED_BYTES = 16
_GUESSED = ("aac", "mp3")

av.logging.set_level(None)


@contextmanager
def open_container(handle: Any, refusal: str, name: str | None = None) -> Iterator[Source]:
    """The first audio stream of the file `handle`; `refusal` is why libsndfile did not take it.

    The format, where its `name` is not given, is chosen here by the first bytes, never by FFmpeg's own guess, which may
    be a playlist that names further files and URLs to read. Raises AudioError not_audio, undecodable or empty.
    """
    handle.seek(0)
    name = name or _format(handle.read(_PROBED_BYTES))
    handle.seek(0)
    if name is None:
        raise AudioError("not_audio", refusal)
    try:
        container = av.open(handle, format=name, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, ArithmeticError, LookupError) as error:
        raise AudioError("not_audio", f"{name}: {error}") from error
    with container:
        if not container.streams.audio:
            raise AudioError("not_audio", f"{name}: the file has no audio stream")
        yield _ContainerSource(container, handle)


def _format(head: bytes) -> str | None:
    """FFmpeg's name of a container by its first bytes, None for every other."""
    if head[4:8] == b"ftyp":
        return "mov"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if head[:4] == b"OggS":
        return "ogg"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    return None


class _ContainerSource:
    """Decoded from the beginning, whatever the offset: times in these files are too coarse to seek to a sample."""

    def __init__(self, container: Any, handle: Any) -> None:
        self._handle = handle
        self._frames = _decoded(container)
        self._first = next(self._frames, None)
        if self._first is None:
            raise AudioError("empty", "the audio stream holds no samples")
        # The decoder's word, not the header's: AAC may double the rate that its header tells.
        self.rate_hz = int(self._first.sample_rate)
        self.channels = int(self._first.layout.nb_channels)
        stated_s = _stated_s(container)
        self.stated_samples = seconds_to_samples(stated_s, self.rate_hz) if stated_s else None

    def missing_end(self) -> str | None:
        """What the container's outer elements promise and the file lacks. The decoder has read to the end by now."""
        return missing_end(self._handle)

    def blocks(self, start_sample: int, num_samples: int | None) -> Iterator[np.ndarray]:
        """Float32 samples (n, channels) from `start_sample`."""
        assert self._first is not None
        position = 0  # FFmpeg has dropped by itself what the encoder put before time 0
        end = None if num_samples is None else start_sample + num_samples
        frame, self._first = self._first, None
        while frame is not None and (end is None or position < end):
            block_NC = self._samples(frame)
            skip = max(0, start_sample - position)
            kept_NC = block_NC[skip:] if end is None else block_NC[skip : max(0, end - position)]
            position += len(block_NC)
            if len(kept_NC):
                yield kept_NC
            frame = next(self._frames, None)

    def _samples(self, frame: Any) -> np.ndarray:
        if (frame.sample_rate, frame.layout.nb_channels) != (self.rate_hz, self.channels):
            seen = f"{frame.sample_rate} Hz and {frame.layout.nb_channels} channels"
            raise AudioError(
                "undecodable", f"begins with {self.rate_hz} Hz, {self.channels} channels, goes on at {seen}"
            )
        array = frame.to_ndarray()
        samples_NC = array.T if frame.format.is_planar else array.reshape(-1, self.channels)
        if samples_NC.dtype.kind == "f":
            return samples_NC.astype(np.float32)
        half = float(2 ** (8 * samples_NC.dtype.itemsize - 1))
        return (samples_NC / half - (1.0 if samples_NC.dtype.kind == "u" else 0.0)).astype(np.float32)


def _stated_s(container: Any) -> float | None:
    """How long the sound is said to be: by itself, or by a file that holds nothing else. Pictures may last longer."""
    if container.format.name in _GUESSED:  # FFmpeg's, from the first bit rates, may be a tenth of it
        return None
    stream = container.streams.audio[0]
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None


def _decoded(container: Any) -> Iterator[Any]:
    try:
        yield from container.decode(container.streams.audio[0])
    except (av.error.FFmpegError, ValueError, ArithmeticError, LookupError) as error:
        raise AudioError("undecodable", str(error)) from error
