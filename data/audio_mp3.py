"""What an MP3 file says of its own length, and whether that can be believed (ISO 11172-3, 13818-3, layer III).

libsndfile reads as many samples as a Xing tag or, without one, the first frame's bit rate lets it expect, and not one
more. Of files without a tag whose bit rate varies that may be half.
"""

from typing import Any

_LOOKED_AT_BYTES = 1 << 16
_ID3_BYTES = 10
_KBITS = {True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}  # MPEG 1
_KBITS[False] = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG 2 and 2.5
_RATES_HZ = (44100, 48000, 32000)
_DIVISOR = {3: 1, 2: 2, 0: 4}  # by the two bits of the version
_TAGS = (b"Xing", b"Info")
_TAG_WITHIN_BYTES = 48  # of its frame
_HAS_FRAMES = 1


def length_is_a_guess(handle: Any) -> bool:
    """Whether the seekable binary `handle` begins with frames of several bit rates and no tag that counts them."""
    handle.seek(0)
    head = handle.read(_ID3_BYTES)
    start = _ID3_BYTES + _syncsafe(head[6:10]) if head[:3] == b"ID3" else 0
    handle.seek(start)
    frames = handle.read(_LOOKED_AT_BYTES)
    if _counts_frames(frames[: _TAG_WITHIN_BYTES + 12]):
        return False
    bit_rates, position = set(), 0
    while (kbits_and_bytes := _frame(frames[position : position + 4])) is not None:
        bit_rates.add(kbits_and_bytes[0])
        position += kbits_and_bytes[1]
    return len(bit_rates) > 1


def is_frame(head: bytes) -> bool:
    """Whether a frame begins with these bytes, four or more."""
    return _frame(head[:4]) is not None


def _counts_frames(first: bytes) -> bool:
    place = next((place for tag in _TAGS if (place := first.find(tag)) >= 0), -1)
    flags, count = first[place + 4 : place + 8], first[place + 8 : place + 12]
    return place >= 0 and bool(int.from_bytes(flags, "big") & _HAS_FRAMES) and any(count)


def _frame(head: bytes) -> tuple[int, int] | None:
    """(kbit/s, bytes) of the frame with this header; None where it is none of layer III."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate_index = head[1] >> 3 & 3, head[2] >> 2 & 3
    if version not in _DIVISOR or rate_index == 3 or not 0 < head[2] >> 4 < 15:
        return None
    kbits = _KBITS[version == 3][head[2] >> 4]
    rate_hz = _RATES_HZ[rate_index] // _DIVISOR[version]
    samples = 1152 if version == 3 else 576
    return kbits, samples // 8 * kbits * 1000 // rate_hz + (head[2] >> 1 & 1)


def _syncsafe(four: bytes) -> int:
    """ID3's numbers have seven bits in a byte."""
    number = 0
    for byte in four:
        number = number << 7 | byte & 0x7F
    return number
