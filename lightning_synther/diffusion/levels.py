"""The noise levels between which to sample, derived from the data.

Largest: sampling starts at pure noise, as if rows plus noise were centred noise alone. Along the direction of
largest variance v that is wrong by the factor sqrt(1 + v / sigma_max**2) in the deviation.

Smallest: one last evaluation D(x; sigma_min) takes the sampler from sigma_min to the data, to the mean of all
rows that x may have been. What is finer than sigma_min is averaged out: noise around a relation, which is
what one wants, as well as structure, which is not. Of a direction of variance v it leaves v / (v + sigma_min**2).
The data say nothing about structure finer than the distance between neighbouring rows. Of m intrinsic
dimensions, neighbours at distance r differ by r / sqrt(m) in each, as two rows do that have noise of deviation
r / sqrt(2 m): sigma_min is that, within bounds. With more than about four intrinsic dimensions the upper bound
decides (30,000 transitions of cheetah_run have 11, and neighbours at r / sqrt(2 m) = 0.25).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

NUM_QUERIES, NUM_ROWS = 256, 16_384
START_ERROR = 0.02
"""Relative error of the widest direction's deviation at the start. A sampler that adds noise forgets it, and with few
steps a wider range costs more: on Gaussian rows 12 steps of ``dpmpp_2m_sde`` end 5 % too wide with 0.02, 7 % with
0.005. Deterministic samplers keep it."""
SMALLEST, LARGEST = 0.02, 0.1
"""Bounds of sigma_min, in deviations of the columns. Above 0.1, 1 % of the variance of every column would be
lost; below 0.02, more than two deviations below the median noise of training, networks have seen little."""


class DataLevels(NamedTuple):
    """``sigma_min``, ``sigma_max``, and what they came from: intrinsic dimension, median neighbour distance
    (both in normalised units) and deviation along the widest direction.
    """

    sigma_min: float
    sigma_max: float
    intrinsic_dim: float
    neighbour_distance: float
    extent: float


def data_levels(rows: Tensor) -> DataLevels:
    """Noise levels for normalised ``rows`` (N, D); at most `NUM_ROWS` of them are looked at, evenly spaced.

    Deterministic. Repeated rows (distance 0) do not count as neighbours.
    """
    count = min(len(rows), NUM_ROWS)
    index = ((torch.arange(count, dtype=torch.float64) + 0.5) * len(rows) / count).long()
    candidates = rows[index].float()
    queries = candidates[:: max(1, count // NUM_QUERIES)]
    first, second = _two_nearest(queries, candidates)
    usable = (first > 0) & second.isfinite()
    if usable.any():
        first, second = first[usable], second[usable]
        dim = _intrinsic_dim(first, second, rows.shape[1])
        distance = first.median().item()
        sigma_min = distance / math.sqrt(2 * dim)
    else:  # a handful of distinct rows: nothing to resolve
        dim, distance, sigma_min = float("nan"), 0.0, math.inf
    covariance = candidates.double().T.cov(correction=0)
    extent = math.sqrt(max(torch.linalg.eigvalsh(covariance)[-1].item(), 0.0))
    variances = covariance.diagonal()
    varying = variances[variances > 1e-12]
    scale = math.sqrt(varying.mean().item()) if len(varying) else 1.0
    sigma_min = min(max(sigma_min, SMALLEST * scale), LARGEST * scale)
    sigma_max = max(extent / math.sqrt(2 * START_ERROR), 10 * sigma_min)
    return DataLevels(sigma_min, sigma_max, dim, distance, extent)


def _two_nearest(queries: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (Q,) to the nearest and second nearest row that is not the query itself or equal to it."""
    # By differences: the shortcut through a matrix product leaves a row at some distance from itself.
    distances = torch.cdist(queries, candidates, compute_mode="donot_use_mm_for_euclid_dist")
    distances = torch.where(distances > 1e-6 * queries.shape[1] ** 0.5, distances, math.inf)
    nearest = distances.topk(2, largest=False).values
    return torch.where(nearest[:, 0].isfinite(), nearest[:, 0], 0.0), nearest[:, 1]


def _intrinsic_dim(first: Tensor, second: Tensor, largest: int) -> float:
    """TwoNN's maximum-likelihood estimate (Facco et al. 2017, arXiv 1803.06992): 1 / mean ln(r_2 / r_1)."""
    mean_log = (second / first).log().mean().item()
    return min(float(largest), 1 / mean_log) if mean_log > 0 else float(largest)
