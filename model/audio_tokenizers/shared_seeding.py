"""The first centroids of a k-means over points that several processes hold: k-means||, thinned out by k-means++.

Shapes: D = dimensions, C = candidates, K = clusters, P = proposals.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from model.audio_tokenizers.assignment import assign_with_distance

_ROUNDS = 5
# Candidates per round and cluster: 2.5 in all for each cluster. More cost a pass over all points as dear as Lloyd's for
# every cluster's worth of them, and serve no better.
_OVERSAMPLING = 0.5
_MOST_PROPOSALS = 256


def first_centroids(call: Any, sizes: Mapping[int, int], num_clusters: int, seed: int) -> torch.Tensor:
    """Centroids (K, D) by k-means|| (Bahmani et al. 2012): rounds each draw many candidates at once, by their squared
    distance to those before; weighted by the points nearest to them, k-means++ thins them out.

    `call` as of `fit_shared_kmeans`; `sizes` are the points of each block.
    """
    generator = generator_of(f"{seed}/first")
    candidates_CD = torch.cat([point for found in call("point", *_any_place(sizes, generator)) for point in found])
    for round_ in range(_ROUNDS):
        potential = math.fsum(merged(call("spread", candidates_CD)).values())
        if potential <= 0:
            break
        drawn = call("draw", candidates_CD, _OVERSAMPLING * num_clusters / potential, f"{seed}/{round_}")
        candidates_CD = torch.cat([candidates_CD, *_in_order(drawn)])
    weights_C = torch.stack(call("weights", candidates_CD)).sum(0)
    return thinned(candidates_CD, weights_C.double(), num_clusters, generator)


def thinned(
    candidates_CD: torch.Tensor, weights_C: torch.Tensor, num_clusters: int, generator: torch.Generator
) -> torch.Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007) over weighted points: K of them, in the order drawn.

    Points are proposed many at a time by distances that lack the centroids of their own batch. Distances only fall, so
    a proposal that stays with chance new / old is drawn by the new ones: the law is that of one draw after another,
    and the work is one product of matrices a batch. Beside the candidates memory holds some numbers for each.
    """
    chosen = _drawn(weights_C, 1, generator)
    nearest_C = _nearest(candidates_CD, chosen)
    while len(chosen) < num_clusters:
        chance_C = weights_C * nearest_C
        if not float(chance_C.sum()) > 0:  # every point has its centroid: the rest coincide
            chosen += _drawn(weights_C, num_clusters - len(chosen), generator)
            break
        proposed = _drawn(chance_C, min(len(chosen), _MOST_PROPOSALS), generator)
        kept = _kept(candidates_CD[proposed], nearest_C[proposed], generator)[: num_clusters - len(chosen)]
        new = [proposed[i] for i in kept]
        chosen += new
        nearest_C = torch.minimum(nearest_C, _nearest(candidates_CD, new))
    return candidates_CD[chosen].clone()


def generator_of(name: str) -> torch.Generator:
    """Random numbers that hang on `name` alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def merged(parts: Iterable[Mapping[int, Any]]) -> dict[int, Any]:
    """What the parts say of their blocks, as one."""
    return {number: value for part in parts for number, value in part.items()}


def _any_place(sizes: Mapping[int, int], generator: torch.Generator) -> tuple[int, int]:
    """The (block, row) of a point, each as likely."""
    numbers = sorted(sizes)
    ends = np.cumsum([sizes[number] for number in numbers])
    pick = int(torch.randint(int(ends[-1]), (1,), generator=generator))
    index = int(np.searchsorted(ends, pick, side="right"))
    return numbers[index], pick - int(ends[index]) + sizes[numbers[index]]


def _drawn(chance_C: torch.Tensor, number: int, generator: torch.Generator) -> list[int]:
    """Indices drawn with replacement, each with its share of the chances."""
    cumulative_C = chance_C.cumsum(0)
    draws_P = torch.rand(number, generator=generator, dtype=torch.float64) * cumulative_C[-1]
    return [int(i) for i in torch.searchsorted(cumulative_C, draws_P, right=True).clamp_max_(len(chance_C) - 1)]


def _nearest(candidates_CD: torch.Tensor, chosen: Sequence[int]) -> torch.Tensor:
    """Squared distance (C,) to the nearest of these candidates; none to themselves, whatever rounding says."""
    squares_C = assign_with_distance(candidates_CD, candidates_CD[chosen])[1]
    squares_C[chosen] = 0
    return squares_C


def _kept(points_PD: torch.Tensor, old_P: torch.Tensor, generator: torch.Generator) -> list[int]:
    """Which proposals stay, gone through in order: each with the chance that its distance, less for those kept before
    it, has to the distance it was proposed by."""
    exact = "donot_use_mm_for_euclid_dist"  # equal points are at distance 0, and one of them is enough
    between_PP = torch.cdist(points_PD, points_PD, compute_mode=exact).square().numpy()
    bounds_P = (torch.rand(len(points_PD), generator=generator) * old_P).numpy()
    now_P = old_P.numpy().copy()
    kept: list[int] = []
    for i, bound in enumerate(bounds_P):
        if bound < now_P[i]:
            kept.append(i)
            now_P = np.minimum(now_P, between_PP[i])
    return kept


def _in_order(found: list[Any]) -> list[torch.Tensor]:
    """Points (1, D) of all parts by place, whoever holds them."""
    points = [pair for part in found for pair in zip(part.places, part.points_ND, strict=True)]
    return [point_D[None] for _, point_D in sorted(points, key=lambda pair: pair[0])]
