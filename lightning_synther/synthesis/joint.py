"""Columns together: correlations of pairs of them, and distributions along random directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis.subsample import BLOCK_ROWS

NUM_PROJECTIONS = 128
#: Rows of each sample along the directions. The distance between two samples of one distribution, the floor, is
#: then about 0.003 standard deviations: ten times as many would make it 0.001.
MAX_PROJECTED = 200_000
_BLOCK_DIRECTIONS = 16


def correlations(rows: Tensor) -> Tensor:
    """Pearson correlations (D, D) float64 of the columns of (n, D); 0 with a constant column.

    Products are float32 of centred blocks, their sums float64.
    """
    mean = torch.zeros(rows.shape[1], dtype=torch.float64)
    for block in rows.split(BLOCK_ROWS):
        mean += block.sum(0)
    mean /= len(rows)
    centre = mean.float()
    covariance = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in rows.split(BLOCK_ROWS):
        centred = block - centre
        covariance += centred.T @ centred
    covariance /= len(rows)
    std = covariance.diagonal().sqrt()
    # Less than float32 resolves beside the mean is rounding.
    scale = torch.where(std > 1e-6 * mean.abs(), 1 / std, torch.zeros_like(std))
    return covariance * scale * scale[:, None]


def correlation_error(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference between the correlations of all pairs of different columns."""
    return correlation_difference(correlations(first), correlations(second))


def correlation_difference(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of two matrices (D, D) off their diagonals."""
    difference = (first - second).abs()
    dim = len(difference)
    return (difference.sum() - difference.trace()).item() / (dim * (dim - 1))


def sliced_wasserstein(first: Tensor, second: Tensor, seed: int = 0) -> float:
    """Wasserstein-1 distance of (n, D) and (m, D) along random directions, mean over the directions.

    Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".
    """
    return sliced_wassersteins((first, second), ((0, 1),), seed)[0]


def sliced_wassersteins(
    samples: Sequence[Tensor], pairs: Sequence[tuple[int, int]], seed: int = 0
) -> list[float]:
    """`sliced_wasserstein` of the ``pairs`` of ``samples`` (n_i, D), given by their numbers, on equal directions."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "projections"))
    directions = torch.randn(samples[0].shape[1], NUM_PROJECTIONS, generator=generator)
    directions /= directions.norm(dim=0)
    sums = [0.0] * len(pairs)
    for block in directions.T.split(_BLOCK_DIRECTIONS):
        lines = [_sorted_along(block, rows) for rows in samples]
        for pair, (one, other) in enumerate(pairs):
            sums[pair] += len(block) * _quantile_distance(lines[one], lines[other])
    return [total / NUM_PROJECTIONS for total in sums]


def _sorted_along(directions: Tensor, rows: Tensor) -> NDArray[np.float32]:
    """Rows (n, D) along each of the ``directions`` (k, D), sorted: (k, n)."""
    along: NDArray[np.float32] = (directions @ rows.T).numpy()
    along.sort(axis=1)
    return along


def _quantile_distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean Wasserstein-1 distance between the sorted lines of (directions, n) and (directions, m)."""
    count = min(first.shape[1], second.shape[1])
    quantiles = []
    for along in (first, second):
        index = ((np.arange(count) + 0.5) * along.shape[1] / count).astype(np.int64)
        quantiles.append(along if count == along.shape[1] else along[:, index])
    return float(np.abs(quantiles[0] - quantiles[1]).mean())
