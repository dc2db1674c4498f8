"""Runs of equal codes as one code with its duration in frames, and back.

Shapes: T = frames, L = codes after deduplication.
"""

import numpy as np

MAX_DURATION_FRAMES = int(np.iinfo(np.int16).max)  # what the token store's int16 holds; a longer run is split


def deduplicate(codes_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int16 codes (L,) in which no two neighbours are equal, and how many frames (L,) int16 each stands for.

    A run longer than 32767 frames (22 minutes at 25 Hz) becomes several entries of the same code. `expand` of the two
    is `codes_T` again.
    """
    codes_T = np.asarray(codes_T, dtype=np.int16).reshape(-1)
    starts = np.flatnonzero(np.append(True, codes_T[1:] != codes_T[:-1])[: codes_T.size])
    runs = np.diff(np.append(starts, codes_T.size))
    pieces = -(-runs // MAX_DURATION_FRAMES)
    durations_L = np.full(int(pieces.sum()), MAX_DURATION_FRAMES, dtype=np.int64)
    durations_L[np.cumsum(pieces) - 1] = runs - (pieces - 1) * MAX_DURATION_FRAMES
    return np.repeat(codes_T[starts], pieces), durations_L.astype(np.int16)


def expand(codes_L: np.ndarray, durations_L: np.ndarray) -> np.ndarray:
    """Codes (T,) of which each is repeated for its duration in frames; of the dtype of `codes_L`.

    Raises ValueError where the two differ in length or a duration is negative (numpy's own).
    """
    codes_L = np.asarray(codes_L).reshape(-1)
    frames_L = np.asarray(durations_L, dtype=np.int64).reshape(-1)
    if codes_L.size != frames_L.size:
        raise ValueError(f"{codes_L.size} codes have {frames_L.size} durations: expected one duration for each code")
    return np.repeat(codes_L, frames_L)


def frames_of_codes(durations: np.ndarray) -> np.ndarray:
    """Frames (L,) int64 that each code stands for.

    Durations have one entry per code; where a code stands for several units, one per unit, of which all but the
    code's first are negative (see model/audio_tokenizers/compression.py).
    """
    durations = np.asarray(durations, dtype=np.int64).reshape(-1)
    starts_L = np.flatnonzero(durations > 0)
    return np.add.reduceat(np.abs(durations), starts_L) if starts_L.size else np.zeros(0, np.int64)
