"""k-means in torch: k-means++ seeding, Lloyd's iterations, the same result for the same seed.

Shapes: N = points, D = dimensions, K = clusters.
"""

import torch

_CHUNK_POINTS = 16384  # bounds the distance matrix
_SEEDING_POINTS_PER_CLUSTER = 64
_TOLERANCE = 1e-4  # relative fall of the distortion below which Lloyd stops


def fit_kmeans(points_ND: torch.Tensor, num_clusters: int, iterations: int, seed: int) -> torch.Tensor:
    """Centroids (K, D) after at most `iterations` of Lloyd (1982), seeded as Arthur and Vassilvitskii (2007) do.

    Runs on one thread, because sums in another order would give other bits. A cluster that loses all its points
    moves to one of the points worst served. Raises ValueError for no points at all; with fewer distinct points than
    clusters some centroids coincide.
    """
    if not len(points_ND):
        raise ValueError("k-means needs at least one point, got none")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator = torch.Generator().manual_seed(seed)
        centroids_KD = _seed_centroids(points_ND, num_clusters, generator)
        previous = float("inf")
        for _ in range(iterations):
            labels_N, distances_N = assign(points_ND, centroids_KD)
            distortion = float(distances_N.mean(dtype=torch.float64))
            if distortion >= previous * (1 - _TOLERANCE):
                break
            previous = distortion
            centroids_KD = _update(points_ND, labels_N, distances_N, num_clusters)
        return centroids_KD
    finally:
        torch.set_num_threads(threads)


def assign(points_ND: torch.Tensor, centroids_KD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest centroid of every point, labels (N,) int64, and its squared distance (N,)."""
    squares_K = centroids_KD.square().sum(1)
    labels, distances = [], []
    for chunk_ND in points_ND.split(_CHUNK_POINTS):
        scores_NK = torch.addmm(squares_K, chunk_ND, centroids_KD.T, alpha=-2)
        nearest = scores_NK.min(dim=1)
        labels.append(nearest.indices)
        distances.append((nearest.values + chunk_ND.square().sum(1)).clamp_min(0))
    if not labels:
        return torch.zeros(0, dtype=torch.int64), points_ND.new_zeros(0)
    return torch.cat(labels), torch.cat(distances)


def _seed_centroids(points_ND: torch.Tensor, num_clusters: int, generator: torch.Generator) -> torch.Tensor:
    """k-means++ over a sample: each next centroid is drawn with chance proportional to its squared distance."""
    sample = torch.randperm(len(points_ND), generator=generator)[: _SEEDING_POINTS_PER_CLUSTER * num_clusters]
    sample_ND = points_ND[sample]
    chosen = [int(torch.randint(len(sample_ND), (1,), generator=generator))]
    nearest_N = (sample_ND - sample_ND[chosen[0]]).square().sum(1)
    for _ in range(num_clusters - 1):
        cumulative_N = nearest_N.cumsum(0, dtype=torch.float64)
        draw = torch.rand(1, generator=generator, dtype=torch.float64) * cumulative_N[-1]
        chosen.append(min(int(torch.searchsorted(cumulative_N, draw, right=True)), len(sample_ND) - 1))
        nearest_N = torch.minimum(nearest_N, (sample_ND - sample_ND[chosen[-1]]).square().sum(1))
    return sample_ND[chosen].clone()


def _update(
    points_ND: torch.Tensor, labels_N: torch.Tensor, distances_N: torch.Tensor, num_clusters: int
) -> torch.Tensor:
    counts_K = torch.bincount(labels_N, minlength=num_clusters)
    sums_KD = torch.zeros(num_clusters, points_ND.shape[1], dtype=torch.float64)
    sums_KD.index_add_(0, labels_N, points_ND.double())
    centroids_KD = (sums_KD / counts_K.clamp_min(1)[:, None]).to(points_ND.dtype)
    empty = torch.nonzero(counts_K == 0).flatten()
    if len(empty):
        worst = torch.argsort(distances_N, descending=True, stable=True)[: len(empty)]
        centroids_KD[empty[: len(worst)]] = points_ND[worst]
    return centroids_KD
