"""Nearest centroids at the speed of the matrix product behind them.

Shapes: N = points, D = dimensions, K = centroids.

|x - c|^2 is smallest where x.c - |c|^2 / 2 is largest: one matrix product that starts from the second term, in chunks
whose scores stay in the cache until their row's maximum is taken. Nothing of size N x K is kept.
"""

import torch

_SCORES_PER_CHUNK = 1 << 18  # 1 MiB of float32: in a core's cache, and long enough to keep the product efficient
_SCORES_PER_CHUNK_CUDA = 1 << 26
_MIN_CHUNK = 64


def assign(features_ND: torch.Tensor, centroids_KD: torch.Tensor) -> torch.Tensor:
    """int64 index (N,) of the centroid nearest to each row; the lowest index where several are as near.

    Both on one device and of one floating dtype.
    """
    return _nearest(features_ND, centroids_KD, want_scores=False)[0]


def assign_with_distance(features_ND: torch.Tensor, centroids_KD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `assign`, and the squared distance (N,) to the centroid, of the features' dtype and never negative."""
    codes_N, scores_N = _nearest(features_ND, centroids_KD, want_scores=True)
    squares_N = torch.linalg.vecdot(features_ND, features_ND)
    return codes_N, (squares_N - 2 * scores_N).clamp_min_(0)


def _nearest(
    features_ND: torch.Tensor, centroids_KD: torch.Tensor, want_scores: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    num_points, num_centroids = len(features_ND), len(centroids_KD)
    offsets_K = centroids_KD.square().sum(1).mul_(-0.5)
    transposed_DK = centroids_KD.T
    budget = _SCORES_PER_CHUNK_CUDA if features_ND.is_cuda else _SCORES_PER_CHUNK
    chunk = max(_MIN_CHUNK, budget // num_centroids)
    codes_N = torch.empty(num_points, dtype=torch.int64, device=features_ND.device)
    best_N = features_ND.new_empty(num_points if want_scores else 0)
    scores_CK = features_ND.new_empty(min(chunk, num_points), num_centroids)
    for start in range(0, num_points, chunk):
        part_CD = features_ND[start : start + chunk]
        scores = scores_CK[: len(part_CD)]
        torch.addmm(offsets_K, part_CD, transposed_DK, out=scores)
        codes = codes_N[start : start + chunk]
        if want_scores:
            torch.max(scores, dim=1, out=(best_N[start : start + chunk], codes))
        else:
            torch.argmax(scores, dim=1, out=codes)
    return codes_N, best_N
