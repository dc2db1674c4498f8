"""k-means: finds clusters, the same each time, and survives degenerate points."""

import pytest
import torch

from model.audio_tokenizers.kmeans import assign, fit_kmeans


def blobs(per_blob: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    return torch.cat([c + torch.randn(per_blob, 2, generator=generator) * 0.1 for c in centres])


def test_separated_blobs_get_a_centroid_each():
    centroids = fit_kmeans(blobs(), 4, 20, seed=3)
    labels, distances = assign(blobs(), centroids)
    assert sorted(torch.bincount(labels).tolist()) == [50, 50, 50, 50]
    assert distances.mean() < 0.1


def test_the_seed_decides_everything():
    assert torch.equal(fit_kmeans(blobs(), 7, 10, seed=3), fit_kmeans(blobs(), 7, 10, seed=3))


@pytest.mark.parametrize("points", [1, 3])
def test_fewer_points_than_clusters_still_fit(points):
    centroids = fit_kmeans(blobs()[:points], 5, 10, seed=1)
    assert centroids.shape == (5, 2)
    assert torch.isfinite(centroids).all()


def test_an_empty_cluster_moves_to_the_point_worst_served():
    points = torch.tensor([[0.0]] * 50 + [[0.1]] * 50 + [[100.0]])
    centroids = fit_kmeans(points, 3, 20, seed=0)
    assert assign(points, centroids)[1].max() < 1.0


def test_no_points_is_an_error_and_no_query_is_none():
    with pytest.raises(ValueError, match="at least one point"):
        fit_kmeans(torch.zeros(0, 2), 2, 5, seed=1)
    assert assign(torch.zeros(0, 2), torch.zeros(3, 2))[0].shape == (0,)
