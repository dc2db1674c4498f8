"""Confidence intervals by the bootstrap over utterances (Efron 1979; for WER: Bisani and Ney 2004).

Shapes: N utterances, R resamples.
"""

import zlib
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
_BLOCK_RESAMPLES = 256  # bounds memory at 256 x N indices, whatever R is


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Sum over sum: errors over words is the corpus WER; scores over ones is their mean. 0 where nothing is."""
    below = float(sum(denominators))
    return float(sum(numerators)) / below if below else 0.0


def bootstrap_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    name: str,
    seed: int,
    resamples: int = 1000,
) -> tuple[float, float] | None:
    """The 95 % percentile interval of `ratio` when utterances are drawn again with replacement.

    `name` and `seed` alone decide the draws, so a line keeps its interval whatever is reported beside it.
    None where fewer than two utterances leave nothing to draw from.
    """
    above_N = np.asarray(numerators, dtype=np.float64)
    below_N = np.asarray(denominators, dtype=np.float64)
    count = len(above_N)
    if count < 2 or not below_N.sum():
        return None
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    ratios = []
    for start in range(0, resamples, _BLOCK_RESAMPLES):
        picks_RN = rng.integers(0, count, size=(min(_BLOCK_RESAMPLES, resamples - start), count))
        above_R, below_R = above_N[picks_RN].sum(axis=1), below_N[picks_RN].sum(axis=1)
        ratios.append(np.divide(above_R, below_R, out=np.zeros_like(above_R), where=below_R > 0))
    low, high = np.quantile(np.concatenate(ratios), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
