"""Whether the end of a recording is there: what its header or its closing mark promises, against the bytes at hand.

libsndfile reads a cut WAV, AIFF, Ogg or MP3 file as a shorter one, FFmpeg a cut webm, without a word; its transcript
would then be of more than is heard. (FLAC says itself that it is cut.)
"""

import os
from typing import Any, Literal, NamedTuple

from data.audio_mp3 import is_frame

_TOLERATED_BYTES = 4096  # hand-made writers count the header among the samples, or forget a last block
_TOLERATED_MP3_BYTES = 1024  # less than a frame of the highest bit rate
_UNKNOWN_SIZE = 0x7F000000  # from here on a placeholder of writers that could not go back to fill it in
_HEAD_BYTES = 1 << 16
_TAIL_BYTES = 1 << 17  # holds at least one whole page of Ogg, which has at most 65,307 bytes
_MAX_CHUNKS = 64
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
# The outer boxes of an mp4 file (ISO 14496-12); what else follows the last of them was put there by somebody else.
_BOXES = frozenset(b"ftyp styp moov mdat moof mfra sidx ssix meta free skip wide uuid".split())
_XING_OFFSETS = (13, 15, 21, 23, 36, 38)  # from the frame: its header, perhaps a checksum, and side information


class _Layout(NamedTuple):
    """A file of chunks, each of a name, a size and as many bytes: how the one with the samples is found."""

    samples: bytes
    start: int  # of the first chunk
    name_bytes: int
    size_bytes: int
    order: Literal["little", "big"]
    size_of_all: bool  # the size counts name and size as well
    aligned_bytes: int


_WAV = _Layout(b"data", 12, 4, 4, "little", False, 2)
# first and ninth to twelfth byte -> layout
_LAYOUTS = {
    (b"RIFF", b"WAVE"): _WAV,
    (b"RF64", b"WAVE"): _WAV,
    (b"FORM", b"AIFF"): _WAV._replace(samples=b"SSND", order="big"),
    (b"FORM", b"AIFC"): _WAV._replace(samples=b"SSND", order="big"),
    (b"riff", b"\xa5\xd6\x28\xdb"): _Layout(b"data", 40, 16, 8, "little", True, 8),  # W64: names are GUIDs
}


def missing_end(handle: Any) -> str | None:
    """What is lacking of the file in a seekable binary `handle`: WAV, AIFF, Ogg, MP3, mp4 and m4a, webm and mkv.

    None where nothing is known to lack. Files without a promise (MP3 without a Xing or Info tag, WAV and webm streams
    of unknown length, bare AAC) are taken as whole.
    """
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    head = handle.read(_HEAD_BYTES)
    layout = _LAYOUTS.get((head[:4], head[8:12]))
    if layout:
        return _missing_samples(handle, size, layout)
    if head[:4] == b"OggS":
        return _second_stream(handle, head, size) or _missing_page(handle, size)
    if head[4:8] == b"ftyp":
        return _missing_box(handle, size)
    if head[:4] == _EBML:
        return _missing_segment(head, size)
    return _missing_frames(handle, head, size)


def _missing_samples(handle: Any, size: int, layout: _Layout) -> str | None:
    """Walk the chunks to that of the samples."""
    position, head_bytes = layout.start, layout.name_bytes + layout.size_bytes
    long = 0  # RF64 has the size of more than 4 GB of samples in a chunk before them
    for _ in range(_MAX_CHUNKS):
        handle.seek(position)
        head = handle.read(head_bytes + 16)
        if len(head) < head_bytes:
            return None
        stated = int.from_bytes(head[layout.name_bytes : head_bytes], layout.order)
        stated = max(0, stated - head_bytes * layout.size_of_all)
        if head[:4] == b"ds64":
            long = int.from_bytes(head[head_bytes + 8 :], "little")
        if head[:4] == layout.samples:
            stated = long or stated
            known = long or layout.size_bytes > 4 or stated < _UNKNOWN_SIZE
            end = position + head_bytes + stated
            return _compare(stated, size - end + stated, "bytes of samples") or _unsaid(handle, end) if known else None
        position += head_bytes + stated
        position += -position % layout.aligned_bytes
    return None


def _unsaid(handle: Any, end: int) -> str | None:
    """Behind the samples are other chunks (`LIST`, `_PMX`, `(c) `), a bare ID3 tag, or padding; what is none of these
    are more samples than the header says."""
    handle.seek(end)
    rest = handle.read(_TOLERATED_BYTES + 1)
    names = (rest[start : start + 4].translate(None, b" _()") for start in range(8))  # aligned, or by mistake not
    chunk = rest[:3] == b"ID3" or any(name.isalnum() for name in names)
    if len(rest) <= _TOLERATED_BYTES or not any(rest) or chunk:
        return None
    return "the header states fewer samples than there are: behind them neither another chunk begins nor the file ends"


def _second_stream(handle: Any, head: bytes, size: int) -> str | None:
    """Recordings put one behind the other: decoders end with the first. All streams of one begin on its first pages."""
    begun, position = set(), 0
    while head[position : position + 4] == b"OggS" and head[position + 5] & 2:
        begun.add(head[position + 14 : position + 18])
        lengths = head[position + 27 : position + 27 + head[position + 26]]
        position += 27 + len(lengths) + sum(lengths)
    handle.seek(max(0, size - _TAIL_BYTES))
    tail = handle.read(_TAIL_BYTES)
    last = tail.rfind(b"OggS\x00")
    if not begun or last < 0 or tail[last + 14 : last + 18] in begun:
        return None
    return "another Ogg stream follows the first, with which decoders end"


def _missing_page(handle: Any, size: int) -> str | None:
    """The last page of an Ogg stream is marked as such, and whole."""
    start = max(0, size - _TAIL_BYTES)
    handle.seek(start)
    tail = handle.read(_TAIL_BYTES)
    page = tail.rfind(b"OggS\x00")
    if page < 0:
        return "no page of the Ogg stream begins near its end"
    if page + 27 > len(tail) or not tail[page + 5] & 4:
        return "the Ogg stream has no closing page"
    lengths = tail[page + 27 : page + 27 + tail[page + 26]]
    return _compare(27 + len(lengths) + sum(lengths), len(tail) - page, "bytes of the closing page", tolerated=0)


def _missing_frames(handle: Any, head: bytes, size: int) -> str | None:
    """An MP3 encoder writes how many bytes it made into a Xing or Info tag of the first frame."""
    places = [place for place in (head.find(b"Xing"), head.find(b"Info")) if place >= 0]
    if not places:
        return None
    tag = min(places)
    frame = next((tag - n for n in _XING_OFFSETS if head[max(0, tag - n) : tag][:2] >= b"\xff\xe0"), -1)
    flags = int.from_bytes(head[tag + 4 : tag + 8], "big")
    if frame < 0 or not flags & 2:
        return None
    field = tag + 8 + (4 if flags & 1 else 0)
    stated = int.from_bytes(head[field : field + 4], "big")
    handle.seek(frame + stated)
    if stated and size - frame - stated > _TOLERATED_BYTES and is_frame(handle.read(4)):
        return f"the header states {stated} bytes of MP3 frames, and more of them follow"
    return _compare(stated, size - frame, "bytes of MP3 frames", tolerated=_TOLERATED_MP3_BYTES)


def _missing_box(handle: Any, size: int) -> str | None:
    """Walk the outer boxes of an mp4 file; each says where the next begins."""
    position = 0
    for _ in range(_MAX_CHUNKS):
        handle.seek(position)
        header = handle.read(16)
        stated = int.from_bytes(header[:4], "big")
        if len(header) < 8 or stated == 0:  # the last box may reach to the end, whatever that is
            return None
        if header[4:8] not in _BOXES:
            return None
        if stated == 1:
            stated = int.from_bytes(header[8:], "big")
        if stated > size - position:
            return _compare(stated, size - position, "bytes of a box", tolerated=0)
        position += max(stated, 8)
    return None


def _missing_segment(head: bytes, size: int) -> str | None:
    """Matroska's second element holds all the rest, and states its size unless it was written as a stream."""
    stated, start = _ebml_size(head, len(_EBML))
    position = start + (stated or 0)
    if head[position : position + 4] != _SEGMENT:
        return None
    stated, start = _ebml_size(head, position + 4)
    return None if stated is None else _compare(stated, size - start, "bytes of the segment", tolerated=0)


def _ebml_size(head: bytes, position: int) -> tuple[int | None, int]:
    """(size or None where it is left open, position behind it): the first set bit tells how many bytes it has."""
    first = head[position] if position < len(head) else 0
    length = 9 - first.bit_length()
    bits = 7 * length
    value = int.from_bytes(head[position : position + length], "big") & ((1 << bits) - 1)
    known = first and value < (1 << bits) - 1
    return (value if known else None), position + length


def _compare(stated: int, there: int, what: str, tolerated: int = _TOLERATED_BYTES) -> str | None:
    if stated - there <= tolerated:
        return None
    return f"the header states {stated} {what}, {max(0, there)} are there"
