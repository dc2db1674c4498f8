"""An opened recording: what every decoder offers, libsndfile's own, and why a file is no usable audio."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import soundfile

from data.audio_end import missing_end
from data.audio_mp3 import length_is_a_guess

_BLOCK_FRAMES = 1 << 16
_UNKNOWN_FRAMES = 1 << 62  # libsndfile's word for FLAC whose writer could not go back to fill its length in


class AudioError(ValueError):
    """Why a file is no usable audio: a short `reason` code for quarantine and a `detail` for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Source(Protocol):
    """An opened recording."""

    rate_hz: int
    channels: int
    stated_samples: int | None
    """How many the header states, where it does."""

    def blocks(self, start_sample: int, num_samples: int | None) -> Iterator[np.ndarray]:
        """Float32 samples (n, channels) from `start_sample`, `num_samples` of them (None: all). Raises AudioError."""

    def missing_end(self) -> str | None:
        """What is known to lack at the end, asked after the last block."""


class Watched:
    """A file that keeps the exception which a decoder, called back from C, would take for the end of the file."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.error: Exception | None = None

    def check(self) -> None:
        """Raise AudioError unreadable if a read has failed."""
        if self.error is not None:
            raise AudioError("unreadable", str(self.error)) from self.error

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file."""
        return self._call(self.handle.seek, offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._call(self.handle.tell)

    def read(self, size: int) -> bytes:
        """As of a file."""
        return self._call(self.handle.read, size, failed=b"")

    def readinto(self, buffer: Any) -> int:
        """As of a file."""
        return self._call(self.handle.readinto, buffer)

    def _call(self, act: Any, *arguments: Any, failed: Any = 0) -> Any:
        try:
            return act(*arguments)
        except Exception as error:  # every fsspec backend raises its own kinds
            self.error = error
            return failed


def read_by_others(sound: soundfile.SoundFile, handle: Watched) -> str | None:
    """FFmpeg's name of a format that libsndfile opens and does not read to the end; None where it does."""
    if sound.format == "FLAC" and sound.frames >= _UNKNOWN_FRAMES:
        return "flac"
    if sound.format != "MP3":
        return None
    position = handle.tell()
    guessed = length_is_a_guess(handle)
    handle.seek(position)
    return "mp3" if guessed else None


class SoundFileSource:
    """What libsndfile reads."""

    def __init__(self, sound: soundfile.SoundFile, handle: Watched) -> None:
        self.sound = sound
        self.handle = handle
        self.rate_hz = sound.samplerate
        self.channels = sound.channels
        self.stated_samples: int | None = sound.frames

    def blocks(self, start_sample: int, num_samples: int | None) -> Iterator[np.ndarray]:
        """Float32 samples (n, channels) from `start_sample`."""
        total = 0
        try:
            if start_sample and start_sample >= self.sound.frames:
                return
            if start_sample:
                self.sound.seek(start_sample)
            while num_samples is None or total < num_samples:
                ask = _BLOCK_FRAMES if num_samples is None else min(_BLOCK_FRAMES, num_samples - total)
                block_NC = self.sound.read(ask, dtype="float32", always_2d=True)
                if not len(block_NC):
                    return
                total += len(block_NC)
                yield block_NC
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError("undecodable", str(error)) from error

    def missing_end(self) -> str | None:
        """What header or closing mark promise and the file lacks. The decoder has read to the end by now."""
        return missing_end(self.handle)
