"""Assignment: the nearest centroid for any number of points, with its distance, ties to the lowest index."""

import pytest
import torch

from model.audio_tokenizers.assignment import assign, assign_with_distance


@pytest.mark.parametrize("points", [0, 1, 63, 3000])
def test_codes_and_distances_are_those_of_brute_force(points):
    generator = torch.Generator().manual_seed(points)
    features = torch.randn(points, 24, generator=generator, dtype=torch.float64)
    centroids = torch.randn(400, 24, generator=generator, dtype=torch.float64)
    codes, distances = assign_with_distance(features, centroids)
    brute = torch.cdist(features, centroids).square()
    assert torch.equal(codes, brute.argmin(1))
    assert torch.equal(assign(features, centroids), codes)
    assert torch.allclose(distances, brute.amin(1) if points else distances)


def test_the_lowest_of_equal_centroids_wins_and_no_distance_is_negative():
    centroids = torch.tensor([[1.0, 0.0], [1000.1, 3.3], [1000.1, 3.3]])
    codes, distances = assign_with_distance(centroids, centroids)
    assert codes.tolist() == [0, 1, 1]
    assert (distances >= 0).all()
