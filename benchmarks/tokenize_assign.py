"""Assigning frames to centroids against the matrix product that it cannot do without.

Shapes: N = points, D = dimensions, K = centroids.
"""

import statistics
import time
from collections.abc import Callable

REPEATS = 9
DIMENSIONS, CENTROIDS = 768, 500


def assign_over_product(points: int) -> float:
    """Time of `assign` over that of the bare product (N, D) @ (D, K) on one thread: the median of alternating pairs."""
    import torch

    from model.audio_tokenizers.assignment import assign

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator = torch.Generator().manual_seed(1)
        points_ND = torch.randn(points, DIMENSIONS, generator=generator)
        centroids_KD = torch.randn(CENTROIDS, DIMENSIONS, generator=generator)
        product_NK = torch.empty(points, CENTROIDS)
        ratios = []
        for repeat in range(REPEATS + 1):
            product_s = _seconds(lambda: torch.mm(points_ND, centroids_KD.T, out=product_NK))
            assign_s = _seconds(lambda: assign(points_ND, centroids_KD))
            if repeat:  # the first pair warms up
                ratios.append(assign_s / product_s)
        return statistics.median(ratios)
    finally:
        torch.set_num_threads(threads)


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started
