"""Points of the probability simplex, for the search over mixing ratios."""

import numpy as np
from scipy.stats import qmc


def simplex_points(num_points: int, num_parts: int, seed: int, floor: float = 0.05) -> np.ndarray:
    """Well-spread weights that sum to 1, as float64 (num_points, num_parts). The first is uniform.

    The others are a scrambled Sobol sequence, carried to the simplex by the spacings of its sorted
    coordinates (uniform over the simplex), and mixed with the uniform point so that no part gets less
    than `floor`: a source with no data at all tells a search nothing about its neighbours.
    """
    if not 0 <= floor * num_parts < 1:
        raise ValueError(f"floor={floor} leaves nothing to search over {num_parts} parts: choose below {1 / num_parts}")
    uniform = np.full((1, num_parts), 1 / num_parts)
    if num_points == 1 or num_parts == 1:
        return np.repeat(uniform, num_points, axis=0)
    # Sobol points keep their balance only in powers of two.
    exponent = int(np.ceil(np.log2(num_points)))
    cuts = np.sort(qmc.Sobol(num_parts - 1, seed=seed).random_base2(exponent)[: num_points - 1], axis=1)
    edges = np.hstack([np.zeros((len(cuts), 1)), cuts, np.ones((len(cuts), 1))])
    spread = floor + (1 - floor * num_parts) * np.diff(edges, axis=1)
    return np.vstack([uniform, spread])
