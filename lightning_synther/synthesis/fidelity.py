"""How faithful synthetic transitions are: every number beside the one that real data score against real data.

Rows are compared column by column (Kolmogorov-Smirnov), in pairs of columns (correlations), along random
directions (sliced Wasserstein), and by the relation that an agent learns from: reward and next observation
given observation and action. Marginals alone mislead, as samplers with few steps keep them and lose that
relation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import DataError
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis import dynamics, novelty
from lightning_synther.synthesis.dynamics import Dynamics
from lightning_synther.synthesis.novelty import Novelty, thin
from lightning_synther.synthesis.support import Support, support_scores
from lightning_synther.transition import TransitionSpec

Rows = Tensor | NDArray[np.float32]
MAX_ROWS = 200_000
NUM_PROJECTIONS = 128
_BLOCK_COLUMNS = 16
_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Fidelity:
    """Result of `fidelity`.

    ``scores`` by name; lower is better unless said otherwise. A name alone compares synthetic with held-out rows,
    ``<name>_floor`` compares the real training rows with held-out ones in equal numbers (what a perfect generator
    would score), and ``<name>_train`` synthetic with training rows, which a small held-out set does not blur:

    * ``ks_mean``, ``ks_max``, ``ks_<field>``: two-sample Kolmogorov-Smirnov statistic over columns, in [0, 1];
    * ``correlation_error``: mean absolute difference of the correlations of two different columns;
    * ``sliced_wasserstein``: mean Wasserstein-1 distance along random directions, in standard deviations;
    * ``dynamics_error``, ``reward_error``: RMSE, in standard deviations, of reward and next observation together,
      and of the reward alone, as predicted from observation and action by a regression that is fitted on the
      training rows (no ``_train``);
    * ``out_of_range``, ``action_beyond_1``: shares of records outside the training data's range (`Support`) and
      with an action outside [-1, 1] (no ``_train``);
    * ``nearest``, ``memorised``, ``unsupported``: distances to the closest training record (`Novelty`); their
      ``_floor`` is what they should equal. Only with held-out rows.

    ``ks`` holds the statistic of every column of a field, synthetic against held-out rows; ``counts`` how many rows
    stand behind the figures; ``novelty`` the distances themselves.
    """

    scores: dict[str, float]
    ks: dict[str, NDArray[np.float64]]
    counts: dict[str, int]
    novelty: Novelty | None


def fidelity(
    real: Rows,
    synthetic: Rows,
    heldout: Rows | None,
    spec: TransitionSpec,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
) -> Fidelity:
    """Compare rows (N, D): the ``real`` ones trained on, ``synthetic`` ones, and ``heldout`` real ones.

    At most ``max_rows`` of each are read, and not more synthetic than real ones, chosen by ``seed`` alone; memory
    maps are read in place. Without held-out rows the training rows stand in for them, which flatters a model that
    memorises: then there are neither floors nor `Novelty`.

    Raises `DataError` for rows of another spec, with values that are not finite, or fewer than two.

    >>> spec = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)
    >>> normals = torch.randn(3, 1000, spec.dim, generator=torch.Generator().manual_seed(0))
    >>> real, heldout, synthetic = normals[0], normals[1], 1.5 * normals[2]
    >>> result = fidelity(real, synthetic, heldout, spec)
    >>> result.scores["ks_mean"] > 2 * result.scores["ks_mean_floor"]
    True
    """
    train = subsample(real, min(max_rows, len(real)), spec, seed)
    fake = subsample(synthetic, min(len(train), len(synthetic)), spec, seed)
    held = train if heldout is None else subsample(heldout, min(max_rows, len(heldout)), spec, seed)
    statistics = ColumnStatistics.of(train.numpy())
    scores = support_scores(Support.of(statistics, spec), fake, held, spec)
    for rows in (train, fake) if heldout is None else (train, fake, held):
        _standardise(rows, statistics)
    peers = thin(train, len(fake))
    training, made, new = (_Sample(rows, seed) for rows in (peers, fake, held))
    columns = ks_statistic(fake, held)
    scores |= _distances(made, new, columns, spec)
    if heldout is not None:
        scores |= _distances(training, new, ks_statistic(peers, held), spec, "_floor")
        scores |= _distances(made, training, ks_statistic(fake, peers), spec, "_train")
    predictor = Dynamics(train, spec, seed)
    for suffix, rows in (("", fake), ("_floor", held)):
        scores[f"dynamics_error{suffix}"], scores[f"reward_error{suffix}"] = predictor.errors(rows)
    distances = Novelty.of(train, fake, held) if heldout is not None else None
    if distances is None:
        scores = {name: score for name, score in scores.items() if not name.endswith("_floor")}
    else:
        scores |= distances.scores()
    counts = {"training": len(train), "synthetic": len(fake), "heldout": len(held) if distances else 0}
    by_field = {name: columns[part].numpy() for name, part in spec.fields.items()}
    return Fidelity(scores, by_field, counts | _subsamples(counts), distances)


def _standardise(rows: Tensor, statistics: ColumnStatistics) -> None:
    """In place, as there may be a million rows; constant columns are only centred."""
    rows -= torch.from_numpy(statistics.mean).float()
    rows /= unit(statistics.std).float()


def unit(std: NDArray[np.float64]) -> Tensor:
    """The unit (D,) of each column: its standard deviation, 1 for a constant column."""
    return torch.from_numpy(np.where(std > 0, std, 1.0))


class _Sample:
    """What several comparisons need of the same standardised rows."""

    def __init__(self, rows: Tensor, seed: int) -> None:
        self.correlations = correlations(rows)
        self.projections = projections(rows, seed)


def _distances(
    first: _Sample, second: _Sample, ks: Tensor, spec: TransitionSpec, suffix: str = ""
) -> dict[str, float]:
    """Scores of one pair of samples, whose columns differ by ``ks`` (D,)."""
    fields = {f"ks_{name}{suffix}": ks[columns].mean().item() for name, columns in spec.fields.items()}
    return {
        f"ks_mean{suffix}": ks.mean().item(),
        f"ks_max{suffix}": ks.max().item(),
        **fields,
        f"correlation_error{suffix}": correlation_difference(first.correlations, second.correlations),
        f"sliced_wasserstein{suffix}": _quantile_distance(first.projections, second.projections),
    }


def _subsamples(counts: dict[str, int]) -> dict[str, int]:
    """What the slower figures read of the rows."""
    return {
        "dynamics": min(counts["synthetic"], dynamics.MAX_ROWS),
        "nearest_queries": min(counts["synthetic"], novelty.NUM_QUERIES),
        "nearest_candidates": min(counts["training"], novelty.NUM_CANDIDATES),
    }


def subsample(rows: Rows, count: int, spec: TransitionSpec, seed: int) -> Tensor:
    """``count`` of the rows (N, D), float32, without repetition, in their order."""
    if rows.ndim != 2 or rows.shape[1] != spec.dim or count < 2:
        raise DataError(
            f"fidelity needs two or more rows of {spec.dim} numbers, "
            f"got an array of shape {tuple(rows.shape)}"
        )
    generator = np.random.default_rng(derive_seed(seed, "fidelity", len(rows)))
    index = np.sort(generator.choice(len(rows), count, replace=False, shuffle=False))
    part = torch.as_tensor(rows[index], dtype=torch.float32)
    if not part.isfinite().all():
        raise DataError(
            "fidelity cannot be judged on rows with values that are not finite: write the store again"
        )
    return part


def ks_statistic(first: Tensor, second: Tensor) -> Tensor:
    """Two-sample Kolmogorov-Smirnov statistic (D,) of the columns of (n, D) and (m, D), exact.

    The largest distance of the two empirical distribution functions, sup_x |F(x) - G(x)|. It is reached at, or
    just before, a value of the smaller sample.
    """
    small, large = (first, second) if len(first) <= len(second) else (second, first)
    rank = np.arange(len(small) + 1) / len(small)
    statistic = []
    # In numpy, whose sort of floats is 17 times as fast as torch's on a CPU with AVX-512; a few columns at a time,
    # as they lie next to each other in memory.
    for start in range(0, small.shape[1], _BLOCK_COLUMNS):
        blocks = (rows[:, start : start + _BLOCK_COLUMNS].T.contiguous().numpy() for rows in (small, large))
        for x, y in zip(*(np.sort(block, axis=1) for block in blocks), strict=True):
            above = rank[1:] - y.searchsorted(x, side="right") / len(y)
            below = y.searchsorted(x, side="left") / len(y) - rank[:-1]
            statistic.append(max(above.max(), below.max()))
    return torch.from_numpy(np.array(statistic))


def correlations(rows: Tensor) -> Tensor:
    """Pearson correlations (D, D) float64 of the columns of (n, D); 0 with a constant column."""
    mean = rows.mean(0, dtype=torch.float64)
    covariance = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in rows.split(_BLOCK_ROWS):
        centred = block.double().sub_(mean)
        covariance.addmm_(centred.T, centred)
    covariance /= len(rows)
    std = covariance.diagonal().sqrt()
    scale = torch.where(std > 1e-6, 1 / std, torch.zeros_like(std))
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
    return _quantile_distance(projections(first, seed), projections(second, seed))


def projections(rows: Tensor, seed: int) -> NDArray[np.float32]:
    """Rows (n, D) along `NUM_PROJECTIONS` random directions, each sorted: (directions, n)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "projections"))
    directions = torch.randn(rows.shape[1], NUM_PROJECTIONS, generator=generator)
    directions /= directions.norm(dim=0)
    along = (directions.T @ rows.T).numpy()
    along.sort(axis=1)
    return along


def _quantile_distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean Wasserstein-1 distance between the sorted lines of (directions, n) and (directions, m)."""
    count = min(first.shape[1], second.shape[1])
    quantiles = []
    for along in (first, second):
        index = ((np.arange(count) + 0.5) * along.shape[1] / count).astype(np.int64)
        quantiles.append(along[:, index])
    return float(np.abs(quantiles[0] - quantiles[1]).mean())
