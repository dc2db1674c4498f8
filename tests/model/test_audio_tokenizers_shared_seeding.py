"""First centroids: many proposals at once follow the law of k-means++, and weights count every point once."""

from collections import Counter
from itertools import permutations

import numpy as np
import torch

from model.audio_tokenizers.shared_kmeans import Part
from model.audio_tokenizers.shared_seeding import generator_of, thinned

POINTS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0], [3.0, 2.0], [7.0, 1.0]])
WEIGHTS = torch.tensor([5.0, 1.0, 2.0, 4.0, 1.0], dtype=torch.float64)


def chance_of(order: tuple[int, ...]) -> float:
    """By the definition: each next point with a chance proportional to weight times squared distance."""
    chance, nearest = 1.0, np.ones(len(POINTS))
    for pick in order:
        shares = WEIGHTS.numpy() * nearest
        chance *= shares[pick] / shares.sum()
        distances = (POINTS - POINTS[pick]).square().sum(1).numpy()
        nearest = distances if pick == order[0] else np.minimum(nearest, distances)
    return chance


def test_centroids_are_drawn_as_k_means_plus_plus_draws_them():
    runs = 2000
    orders = Counter()
    for run in range(runs):
        found_KD = thinned(POINTS, WEIGHTS, 4, generator_of(f"{run}"))
        orders[tuple(int((row_D == POINTS).all(1).nonzero()) for row_D in found_KD)] += 1
    expected = {order: chance_of(order) for order in permutations(range(5), 4)}
    assert abs(sum(expected.values()) - 1) < 1e-9
    chi_square = sum((orders[order] - runs * p) ** 2 / (runs * p) for order, p in expected.items() if p * runs >= 5)
    freedom = sum(p * runs >= 5 for p in expected.values())
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_many_clusters_are_as_well_served_as_by_one_draw_after_another():
    generator = generator_of("points")
    points_CD = torch.randn(40, 8, generator=generator)[torch.randint(40, (3000,), generator=generator)]
    points_CD = points_CD + 0.3 * torch.randn(3000, 8, generator=generator)
    weights_C = torch.randint(1, 9, (3000,), generator=generator).double()

    def potential(chosen_KD: torch.Tensor) -> float:
        return float((weights_C * torch.cdist(points_CD, chosen_KD).min(1).values.square()).sum())

    def one_by_one(seed: int) -> torch.Tensor:
        rng = np.random.default_rng(seed)
        nearest_C, chosen = np.ones(len(points_CD)), []
        for _ in range(300):
            shares_C = weights_C.numpy() * nearest_C
            chosen.append(rng.choice(len(points_CD), p=shares_C / shares_C.sum()))
            squares_C = (points_CD - points_CD[chosen[-1]]).square().sum(1).numpy()
            nearest_C = squares_C if len(chosen) == 1 else np.minimum(nearest_C, squares_C)
        return points_CD[chosen]

    ours = [potential(thinned(points_CD, weights_C, 300, generator_of(f"{seed}"))) for seed in range(4)]
    theirs = [potential(one_by_one(seed)) for seed in range(4)]
    assert 0.97 < np.mean(ours) / np.mean(theirs) < 1.03


def test_equal_candidates_are_chosen_once_while_others_are_left():
    candidates_CD = torch.arange(6.0)[:, None].repeat(50, 1) * 10
    found_K1 = thinned(candidates_CD, torch.ones(300, dtype=torch.float64), 6, generator_of("x"))
    assert sorted(found_K1[:, 0].tolist()) == [0, 10, 20, 30, 40, 50]


def test_weights_count_every_point_at_its_nearest_candidate_however_they_came():
    rng = np.random.default_rng(0)
    blocks = {0: rng.normal(size=(70, 5)), 3: rng.normal(size=(41, 5))}
    candidates_CD = torch.from_numpy(rng.normal(size=(9, 5))).float()
    part = Part(blocks)
    part.spread(candidates_CD[:4])
    part.spread(candidates_CD[:7])
    points_ND = torch.cat([torch.from_numpy(block).float() for block in blocks.values()])
    nearest_N = torch.cdist(points_ND, candidates_CD).argmin(1)
    assert torch.equal(part.weights(candidates_CD), torch.bincount(nearest_N, minlength=9))
    assert torch.equal(part.weights(candidates_CD), Part(blocks).weights(candidates_CD))  # and begins anew
