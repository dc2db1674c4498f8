"""Which codebooks of a residual quantiser form a stream, and codes that may be decoded.

Shapes: T = frames, K = codebooks.
"""

from collections.abc import Sequence

import numpy as np

from data.errors import InputError


def checked_codebooks(codebooks: Sequence[int] | None, available: int) -> tuple[int, ...]:
    """The codebooks of a stream, all where none are named.

    Raises InputError unless they ascend and are the model's.
    """
    chosen = tuple(range(available)) if codebooks is None else tuple(codebooks)
    if not chosen or list(chosen) != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] >= available:
        raise InputError(f"codebooks are {list(chosen)}, expected ascending indices from 0 to {available - 1}")
    return chosen


def checked_codes(codes_TK: np.ndarray, num_codebooks: int, codebook_size: int) -> np.ndarray:
    """int64 codes (T, K), also of a flat frame-major sequence.

    Raises InputError for a ragged sequence and for codes that no codebook has.
    """
    codes_TK = np.asarray(codes_TK, dtype=np.int64)
    if codes_TK.size % num_codebooks or (codes_TK.ndim == 2 and codes_TK.shape[1] != num_codebooks):
        raise InputError(f"codes have shape {codes_TK.shape}, expected (frames, {num_codebooks})")
    codes_TK = codes_TK.reshape(-1, num_codebooks)
    if codes_TK.size and not 0 <= codes_TK.min() <= codes_TK.max() < codebook_size:
        raise InputError(f"codes range from {codes_TK.min()} to {codes_TK.max()}, expected 0 to {codebook_size - 1}")
    return codes_TK
