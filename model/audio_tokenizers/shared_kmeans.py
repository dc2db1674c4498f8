"""k-means over points that several processes hold, each its own share: only sums, counts and few points travel.

Shapes: N = points, D = dimensions, K = clusters, C = candidates for the first centroids.

The points come in numbered blocks of fixed content, and a part holds whole blocks, so a product of matrices has the
same shape wherever it is computed. Coordinates lie on a grid of 2**-20 (finer than any encoder is exact), on which
sums in float64 are exact up to 2**33 and thus free of order; distortions are added with math.fsum. Hence the
centroids have the same bits for any number of parts, on machines that multiply alike.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from model.audio_tokenizers.assignment import assign_with_distance
from model.audio_tokenizers.shared_seeding import first_centroids, generator_of, merged

# A part's method by name and its arguments -> the result of every part.
Call = Callable[..., list[Any]]

FIT_VERSION = 2  # raised when equal points give other centroids

_GRID = 2.0**20
_CHUNK_POINTS = 16384  # bounds what is copied to a GPU, and the float64 copy, at a time
_TOLERANCE = 1e-4  # relative fall of the distortion below which Lloyd stops


@dataclass(frozen=True)
class Found:
    """Points (n, D) and where each lies: (block, row)."""

    places: list[tuple[int, int]]
    points_ND: torch.Tensor


@dataclass(frozen=True)
class Sums:
    """Of one part's points: their sum (K, D) float64 and number (K,) by cluster, squared distances by block."""

    sums_KD: torch.Tensor
    counts_K: torch.Tensor
    distortion: dict[int, float]


@dataclass(frozen=True)
class SharedFit:
    """Centroids (K, D) float32, the mean squared distance to them and how many iterations Lloyd made."""

    centroids_KD: torch.Tensor
    distortion: float
    iterations: int


class Part:
    """The blocks that one process holds, as float32 on the grid; products on `device`."""

    def __init__(self, blocks: Mapping[int, np.ndarray], device: str = "cpu") -> None:
        """Raises ValueError for features that are not finite."""
        self.device = device
        self.blocks = {number: _on_grid(blocks[number]) for number in sorted(blocks)}
        self._squares: dict[int, torch.Tensor] = {}  # distance to the nearest of the candidates seen so far
        self._owners: dict[int, torch.Tensor] = {}  # which one that is
        self._seen = 0

    def sizes(self) -> dict[int, int]:
        """Points of each block."""
        return {number: len(block_ND) for number, block_ND in self.blocks.items()}

    def point(self, block: int, row: int) -> list[torch.Tensor]:
        """The point (1, D) at a place, where this part has it."""
        return [self.blocks[block][row : row + 1]] if block in self.blocks else []

    def moments(self) -> tuple[torch.Tensor, dict[int, float]]:
        """Sum (D,) of the points in float64, and the sum of their squares by block."""
        blocks = self.blocks.items()
        total_D = sum((block_ND.sum(0, dtype=torch.float64) for _, block_ND in blocks), torch.zeros(self._width()))
        return total_D, {number: float(block_ND.double().square().sum()) for number, block_ND in blocks}

    def spread(self, candidates_CD: torch.Tensor) -> dict[int, float]:
        """Sum of squared distances to the nearest candidate, by block. Candidates are only ever appended."""
        if len(candidates_CD) < self._seen:
            self._seen, self._squares, self._owners = 0, {}, {}
        new_CD = candidates_CD[self._seen :]
        for number in self.blocks if len(new_CD) else ():
            found = [(codes_N, squares_N) for _, codes_N, squares_N in self._nearest(number, new_CD)]
            owners_N = torch.cat([codes_N for codes_N, _ in found]).cpu().int() + self._seen
            squares_N = torch.cat([distances_N for _, distances_N in found]).cpu()
            if number in self._squares:
                nearer_N = squares_N < self._squares[number]
                owners_N = torch.where(nearer_N, owners_N, self._owners[number])
                squares_N = torch.where(nearer_N, squares_N, self._squares[number])
            self._owners[number], self._squares[number] = owners_N, squares_N
        self._seen = len(candidates_CD)
        return {number: float(squares_N.sum(dtype=torch.float64)) for number, squares_N in self._squares.items()}

    def draw(self, candidates_CD: torch.Tensor, factor: float, seed: str) -> Found:
        """Points drawn each with chance factor * squared distance; a point's draw hangs on `seed` and its place."""
        self.spread(candidates_CD)
        places = []
        for number, squares_N in self._squares.items():
            draws_N = torch.rand(len(squares_N), generator=generator_of(f"{seed}/{number}"), dtype=torch.float64)
            places += [(number, int(row)) for row in torch.nonzero(draws_N < squares_N * factor)[:, 0]]
        return self._found(places)

    def weights(self, candidates_CD: torch.Tensor) -> torch.Tensor:
        """How many points (C,) are nearest to each candidate. Frees what `spread` remembers: no round comes after."""
        self.spread(candidates_CD)
        counts_C = torch.zeros(len(candidates_CD), dtype=torch.int64)
        for owners_N in self._owners.values():
            counts_C += torch.bincount(owners_N, minlength=len(candidates_CD))
        self._seen, self._squares, self._owners = 0, {}, {}
        return counts_C

    def sums(self, centroids_KD: torch.Tensor) -> Sums:
        """What Lloyd's next step needs of this part."""
        sums_KD = torch.zeros(centroids_KD.shape, dtype=torch.float64, device=self.device)
        counts_K = torch.zeros(len(centroids_KD), dtype=torch.int64, device=self.device)
        distortion = {}
        for number in self.blocks:
            parts = []
            for chunk_ND, codes_N, distances_N in self._nearest(number, centroids_KD):
                sums_KD.index_add_(0, codes_N, chunk_ND.double())
                counts_K += torch.bincount(codes_N, minlength=len(centroids_KD))
                parts.append(float(distances_N.sum(dtype=torch.float64)))
            distortion[number] = math.fsum(parts)
        return Sums(sums_KD.cpu(), counts_K.cpu(), distortion)

    def worst(self, centroids_KD: torch.Tensor, number_of_points: int) -> tuple[list[float], Found]:
        """The points furthest from their centroids and their squared distances, furthest first."""
        ranked: list[tuple[float, int, int]] = []
        for number in self.blocks:
            distances_N = torch.cat([distances for _, _, distances in self._nearest(number, centroids_KD)]).cpu()
            values, rows = distances_N.sort(descending=True, stable=True)
            top = zip(values[:number_of_points].tolist(), rows[:number_of_points].tolist(), strict=True)
            ranked += [(-value, number, row) for value, row in top]
        ranked = sorted(ranked)[:number_of_points]
        return [-value for value, _, _ in ranked], self._found([(number, row) for _, number, row in ranked])

    def codes(self, centroids_KD: torch.Tensor) -> dict[int, np.ndarray]:
        """int16 codes (N,) of each block."""
        return {
            number: torch.cat([codes for _, codes, _ in self._nearest(number, centroids_KD)]).short().cpu().numpy()
            for number in self.blocks
        }

    def _nearest(
        self, number: int, centroids_KD: torch.Tensor
    ) -> Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Chunks of a block with codes (N,) and squared distances (N,), all on the device."""
        on_device_KD = centroids_KD.to(self.device)
        for chunk_ND in self.blocks[number].split(_CHUNK_POINTS):
            on_device_ND = chunk_ND.to(self.device)
            yield on_device_ND, *assign_with_distance(on_device_ND, on_device_KD)

    def _found(self, places: list[tuple[int, int]]) -> Found:
        points = [self.blocks[number][row : row + 1] for number, row in places]
        return Found(places, torch.cat(points) if points else torch.zeros(0, self._width()))

    def _width(self) -> int:
        return next(iter(self.blocks.values())).shape[1] if self.blocks else 0


def fit_shared_kmeans(
    call: Call, num_clusters: int, iterations: int, seed: int, progress: Callable[[int, float], None] | None = None
) -> SharedFit:
    """k-means|| (Bahmani et al. 2012) and at most `iterations` of Lloyd over the parts behind `call`.

    A cluster that loses all its points moves to one of the points worst served. `progress` is told the iteration and
    the mean squared distance. Raises ValueError for no points at all; with fewer distinct points than clusters some
    centroids coincide.
    """
    sizes = merged(call("sizes"))
    total = sum(sizes.values())
    if not total:
        raise ValueError("k-means needs at least one point, got none")
    centroids_KD = first_centroids(call, sizes, num_clusters, seed)
    previous, step = math.inf, 0
    while True:
        sums_KD, counts_K, distortion = _reduced(call("sums", centroids_KD), total)
        if progress:
            progress(step, distortion)
        if distortion >= previous * (1 - _TOLERANCE) or step == iterations:
            return SharedFit(centroids_KD, distortion, step)
        previous, step = distortion, step + 1
        moved_KD = (sums_KD / counts_K.clamp_min(1)[:, None]).float()
        empty = torch.nonzero(counts_K == 0)[:, 0]
        if len(empty):
            worst_ND = _worst(call("worst", centroids_KD, len(empty)), len(empty))
            moved_KD[empty[: len(worst_ND)]] = worst_ND
        centroids_KD = moved_KD


def shared_quality(call: Call, centroids_KD: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Squared distance to the centroids relative to the variance, and the number (K,) of points of each cluster."""
    total = sum(merged(call("sizes")).values())
    _, counts_K, distortion = _reduced(call("sums", centroids_KD), total)
    moments = call("moments")
    mean_D = sum(total_D for total_D, _ in moments if len(total_D)) / total
    square = math.fsum(merged([squares for _, squares in moments]).values()) / total
    variance = square - float(torch.as_tensor(mean_D).square().sum())
    return distortion / max(variance, 1e-12), counts_K


def _on_grid(features_ND: np.ndarray) -> torch.Tensor:
    features = torch.from_numpy(np.ascontiguousarray(features_ND, dtype=np.float32))
    if not torch.isfinite(features).all():
        raise ValueError("the features to cluster hold NaN or infinity")
    return torch.cat([(chunk.double() * _GRID).round_().div_(_GRID).float() for chunk in features.split(_CHUNK_POINTS)])


def _reduced(parts: list[Sums], total: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    parts = [part for part in parts if part.distortion]
    distortion = math.fsum(merged([part.distortion for part in parts]).values()) / total
    sums_KD = torch.stack([part.sums_KD for part in parts]).sum(0)
    return sums_KD, torch.stack([part.counts_K for part in parts]).sum(0), distortion


def _worst(found: list[tuple[list[float], Found]], number_of_points: int) -> torch.Tensor:
    ranked = [
        (-value, place, point_D)
        for values, points in found
        for value, place, point_D in zip(values, points.places, points.points_ND, strict=True)
    ]
    ranked.sort(key=lambda item: item[:2])
    return torch.stack([point_D for _, _, point_D in ranked[:number_of_points]])
