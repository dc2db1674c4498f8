"""Short clips in the formats people have, and ways in which such files get damaged."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

ENCODINGS = (
    ("wav", "PCM_16", 16000, 1),
    ("wav", "PCM_24", 44100, 2),
    ("wav", "FLOAT", 22050, 1),
    ("flac", "PCM_16", 16000, 1),
    ("flac", "PCM_24", 48000, 2),
    ("mp3", "MPEG_LAYER_III", 22050, 1),
    ("mp3", "MPEG_LAYER_III", 44100, 2),
    ("ogg", "VORBIS", 16000, 1),
    ("ogg", "VORBIS", 44100, 2),
    ("ogg", "OPUS", 48000, 1),
)
HEADER_BYTES = 64
# Where a RIFF header holds its size, format, channels, rate, bytes a second, block, bits, and the length of its data.
WAV_FIELDS = ((4, 4), (16, 4), (20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2), (40, 4))
LIES = (0, 1, 64, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@dataclass(frozen=True)
class Clip:
    """An encoded file and the ending of its name."""

    content: bytes
    ending: str


def make_clips(seed: int, count: int) -> list[Clip]:
    """Voiced sounds of 0.2 to 0.5 s, the encodings by turns."""
    clips = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        ending, subtype, rate, channels = ENCODINGS[i % len(ENCODINGS)]
        time_N = np.arange(int(rate * rng.uniform(0.2, 0.5))) / rate
        pitch_N = rng.uniform(90, 250) * time_N + 0.5 * np.sin(2 * np.pi * 5 * time_N)
        wave_N = sum(rng.uniform(0.02, 0.2) * np.sin(2 * np.pi * k * pitch_N) for k in range(1, 6))
        wave_NC = wave_N[:, None] + rng.normal(0, 0.01, (time_N.size, channels))
        buffer = io.BytesIO()
        soundfile.write(buffer, wave_NC, rate, format=ending.upper(), subtype=subtype)
        clips.append(Clip(_reproducible(buffer.getvalue(), i), ending))
    return clips


def mutate(clips: Sequence[Clip], seed: int, index: int) -> tuple[str, Clip]:
    """The name of the damage, and a clip damaged so: a function of (seed, index), every kind and encoding by turns."""
    rng = np.random.default_rng([seed, index])
    kinds = sorted(MUTATIONS)
    kind = kinds[index % len(kinds)]
    clip = clips[index // len(kinds) % len(clips)]
    other = clips[int(rng.integers(len(clips)))]
    return kind, MUTATIONS[kind](rng, clip, other)


def _reproducible(content: bytes, serial: int) -> bytes:
    """A file without what the library draws or reads from the clock: the serial of Ogg streams, the date of peaks."""
    peak = content.find(b"PEAK", 0, HEADER_BYTES)
    if peak > 0:
        return content[: peak + 12] + bytes(4) + content[peak + 16 :]
    if not content.startswith(b"OggS"):
        return content
    pages = bytearray(content)
    start = 0
    while start < len(pages):
        segments = pages[start + 26]
        end = start + 27 + segments + sum(pages[start + 27 : start + 27 + segments])
        pages[start + 14 : start + 18] = serial.to_bytes(4, "little")
        pages[start + 22 : start + 26] = bytes(4)
        pages[start + 22 : start + 26] = _ogg_checksum(pages[start:end]).to_bytes(4, "little")
        start = end
    return bytes(pages)


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of polynomial 0x04c11db7, bits not reflected (RFC 3533)."""
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 1 << 31 else 0)) & 0xFFFFFFFF
    return checksum


def _flip_bits(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    return Clip(_flipped(rng, clip.content, len(clip.content)), clip.ending)


def _flip_header_bits(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    return Clip(_flipped(rng, clip.content, HEADER_BYTES), clip.ending)


def _truncate(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    end = rng.integers(HEADER_BYTES * 2) if rng.random() < 0.3 else rng.integers(len(clip.content))
    return Clip(clip.content[: int(end)], clip.ending)


def _lie_in_header(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    content = bytearray(clip.content)
    for _ in range(rng.integers(1, 4)):
        start, size = (int(rng.integers(HEADER_BYTES)), int(rng.choice([1, 2, 4])))
        if clip.ending == "wav":
            start, size = WAV_FIELDS[rng.integers(len(WAV_FIELDS))]
        lie = int(rng.choice(LIES)) if rng.random() < 0.7 else int(rng.integers(1 << 32))
        order = "little" if clip.ending == "wav" or rng.random() < 0.5 else "big"
        content[start : start + size] = (lie & ((1 << 8 * size) - 1)).to_bytes(size, order)
    return Clip(bytes(content), clip.ending)


def _insert_block(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    start, size = int(rng.integers(len(clip.content) + 1)), int(rng.integers(1, 4096))
    return Clip(clip.content[:start] + rng.bytes(size) + clip.content[start:], clip.ending)


def _remove_block(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    start, end = _span(rng, clip)
    return Clip(clip.content[:start] + clip.content[end:], clip.ending)


def _zero_block(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    start, end = _span(rng, clip)
    return Clip(clip.content[:start] + bytes(end - start) + clip.content[end:], clip.ending)


def _swap_ending(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    others = [*sorted({ending for ending, *_ in ENCODINGS} - {clip.ending}), "m4a", "webm", "txt"]
    return Clip(clip.content, others[rng.integers(len(others))])


def _concatenate(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    cut = int(rng.integers(len(other.content) + 1))
    return Clip(clip.content + other.content[cut if rng.random() < 0.5 else 0 :], clip.ending)


def _graft_header(rng: np.random.Generator, clip: Clip, other: Clip) -> Clip:
    """The beginning of one file on the rest of another."""
    cut = int(rng.integers(4, HEADER_BYTES * 2))
    return Clip(other.content[:cut] + clip.content[cut:], clip.ending)


def _span(rng: np.random.Generator, clip: Clip) -> tuple[int, int]:
    start, end = sorted(int(place) for place in rng.integers(len(clip.content) + 1, size=2))
    return start, end


def _flipped(rng: np.random.Generator, content: bytes, within_bytes: int) -> bytes:
    damaged = bytearray(content)
    for place in rng.integers(min(within_bytes, len(content)), size=int(rng.integers(1, 33))):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


MUTATIONS: dict[str, Callable[[np.random.Generator, Clip, Clip], Clip]] = {
    "bits": _flip_bits,
    "header_bits": _flip_header_bits,
    "truncated": _truncate,
    "lie": _lie_in_header,
    "inserted": _insert_block,
    "removed": _remove_block,
    "zeroed": _zero_block,
    "ending": _swap_ending,
    "concatenated": _concatenate,
    "grafted": _graft_header,
}
