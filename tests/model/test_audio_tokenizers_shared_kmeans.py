"""k-means over shares: the same bits on one part and on three, as good as k-means on one machine."""

import numpy as np
import pytest
import torch

from model.audio_tokenizers.kmeans import assign, fit_kmeans
from model.audio_tokenizers.shared_kmeans import Part, fit_shared_kmeans, shared_quality


def make_blocks(sizes=(400, 37, 512, 800, 1, 250), dimension: int = 12, clusters: int = 15) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 3, (clusters, dimension))
    return {
        number: (centres[rng.integers(0, clusters, size)] + rng.normal(0, 0.5, (size, dimension))).astype(np.float32)
        for number, size in enumerate(sizes)
    }


def call_of(blocks: dict[int, np.ndarray], parts: int):
    """The parts of `blocks` dealt out in turn, behind the door that Ray's actors have."""
    held = [Part({n: block for n, block in blocks.items() if n % parts == part}) for part in range(parts)]
    return lambda method, *arguments: [getattr(part, method)(*arguments) for part in held]


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_any_number_of_parts_finds_the_same_centroids(parts):
    blocks = make_blocks()
    one, several = (fit_shared_kmeans(call_of(blocks, count), 30, 20, seed=4) for count in (1, parts))
    assert torch.equal(one.centroids_KD, several.centroids_KD)
    assert (one.distortion, one.iterations) == (several.distortion, several.iterations)
    for count in (1, parts):
        relative, counts = shared_quality(call_of(blocks, count), one.centroids_KD)
        assert int(counts.sum()) == 2000
        assert relative == pytest.approx(shared_quality(call_of(blocks, 1), one.centroids_KD)[0], rel=1e-12)


def test_it_is_as_good_as_k_means_on_one_machine():
    blocks = make_blocks()
    points = torch.from_numpy(np.concatenate(list(blocks.values())))
    shared = [fit_shared_kmeans(call_of(blocks, 2), 15, 30, seed).distortion for seed in range(3)]
    single = [float(assign(points, fit_kmeans(points, 15, 30, seed))[1].mean()) for seed in range(3)]
    assert np.mean(shared) <= 1.05 * np.mean(single)
    variance = float((points - points.mean(0)).square().sum(1).mean())
    fit = fit_shared_kmeans(call_of(blocks, 1), 15, 30, 0)
    assert shared_quality(call_of(blocks, 1), fit.centroids_KD)[0] == pytest.approx(fit.distortion / variance, rel=1e-4)


def test_the_seed_decides_and_codes_are_those_of_the_nearest_centroid():
    blocks = make_blocks()
    first, again, other = (fit_shared_kmeans(call_of(blocks, 1), 8, 5, seed).centroids_KD for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    codes = call_of(blocks, 1)("codes", first)[0]
    for number, block in blocks.items():
        assert np.array_equal(codes[number], torch.cdist(torch.from_numpy(block), first).argmin(1).numpy())


def test_distortion_never_rises_and_iterations_are_bounded():
    heard: list[float] = []
    fit = fit_shared_kmeans(call_of(make_blocks(), 2), 25, 4, 3, progress=lambda _, value: heard.append(value))
    assert heard == sorted(heard, reverse=True)
    assert fit.iterations <= 4
    assert heard[-1] == fit.distortion


@pytest.mark.parametrize("parts", [1, 3])
def test_empty_clusters_move_to_the_points_worst_served(parts, monkeypatch):
    blocks = make_blocks((50, 50, 50))
    blocks[2][-1] = 100.0
    monkeypatch.setattr(
        "model.audio_tokenizers.shared_kmeans.first_centroids",
        lambda *_: torch.cat([torch.zeros(2, 12), torch.full((2, 12), 1e4)]),  # the last three lose everything
    )
    fit = fit_shared_kmeans(call_of(blocks, parts), 4, 20, seed=0)
    _, counts = shared_quality(call_of(blocks, parts), fit.centroids_KD)
    assert (counts > 0).all()
    assert (fit.centroids_KD == 100.0).all(1).any()


@pytest.mark.parametrize("distinct", [1, 3])
def test_fewer_points_than_clusters_still_fit(distinct):
    blocks = {0: np.repeat(np.eye(4, dtype=np.float32)[:distinct], 5, axis=0)}
    fit = fit_shared_kmeans(call_of(blocks, 2), 6, 10, seed=1)
    assert fit.centroids_KD.shape == (6, 4)
    assert fit.distortion == pytest.approx(0, abs=1e-6)


def test_a_part_that_begins_anew_gives_the_same_draws():
    """An actor that was replaced has forgotten the distances so far."""
    part, candidates = Part(make_blocks()), torch.randn(9, 12, generator=torch.Generator().manual_seed(0))
    part.spread(candidates[:4])
    part.spread(candidates)
    drawn = [one.draw(candidates, 0.01, "x").places for one in (part, Part(make_blocks()))]
    assert drawn[0] == drawn[1] != []


def test_no_points_and_points_that_are_no_numbers_are_errors():
    with pytest.raises(ValueError, match="at least one point"):
        fit_shared_kmeans(call_of({}, 1), 2, 5, seed=1)
    with pytest.raises(ValueError, match="NaN"):
        Part({0: np.full((2, 3), np.nan)})
