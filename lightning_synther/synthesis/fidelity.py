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

from lightning_synther.errors import DataError
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import TransitionSpec

Rows = Tensor | NDArray[np.float32]
NUM_PROJECTIONS = 128
NUM_FEATURES = 512


@dataclass(frozen=True)
class Fidelity:
    """Result of `fidelity`.

    ``scores`` by name; each is better lower. A name alone compares synthetic with held-out rows,
    ``<name>_floor`` compares the real training rows with held-out ones in equal numbers (what a perfect
    generator would score), and ``<name>_train`` synthetic with training rows, which a small held-out set does
    not blur:

    * ``ks_mean``, ``ks_max``, ``ks_<field>``: two-sample Kolmogorov-Smirnov statistic over columns, in [0,
    1]; * ``correlation_error``: mean absolute difference of the correlations of two different columns; *
    ``sliced_wasserstein``: mean Wasserstein-1 distance along random directions, in standard deviations of the
    data; * ``dynamics_error``: RMSE, in standard deviations, of reward and next observation as predicted from
    observation
      and action by a regression that is fitted on the training rows (no ``_train``).

    ``ks`` holds the statistic of every column of a field, synthetic against held-out rows.
    """

    scores: dict[str, float]
    ks: dict[str, NDArray[np.float64]]


def fidelity(
    real: Rows, synthetic: Rows, heldout: Rows, spec: TransitionSpec, max_rows: int = 20_000, seed: int = 0
) -> Fidelity:
    """Compare rows (N, D): the ``real`` ones trained on, ``synthetic`` ones, and ``heldout`` real ones.

    At most ``max_rows`` of each are read, chosen by ``seed`` alone; memory maps are read in place. Raises
    `DataError` for rows of another spec, with values that are not finite, or fewer than two.
    """
    count = min(max_rows, len(real), len(synthetic))
    train, fake = subsample(real, count, spec, seed), subsample(synthetic, count, spec, seed)
    held = subsample(heldout, min(max_rows, len(heldout)), spec, seed)
    mean, std = train.mean(0), train.std(0)
    std = torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std))
    train, fake, held = ((rows - mean) / std for rows in (train, fake, held))

    scores: dict[str, float] = {}
    statistics = {}
    for suffix, first, second in (("", fake, held), ("_floor", train, held), ("_train", fake, train)):
        statistic = statistics[suffix] = ks_statistic(first, second)
        scores[f"ks_mean{suffix}"] = statistic.mean().item()
        scores[f"ks_max{suffix}"] = statistic.max().item()
        for name, columns in spec.fields.items():
            scores[f"ks_{name}{suffix}"] = statistic[columns].mean().item()
        scores[f"correlation_error{suffix}"] = correlation_error(first, second)
        scores[f"sliced_wasserstein{suffix}"] = sliced_wasserstein(first, second, seed)
    predictor = Dynamics(train, spec, seed)
    scores["dynamics_error"] = predictor.error(fake)
    scores["dynamics_error_floor"] = predictor.error(held)
    return Fidelity(scores, {name: statistics[""][columns].numpy() for name, columns in spec.fields.items()})


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
    """Two-sample Kolmogorov-Smirnov statistic (D,) of the columns of (n, D) and (m, D).

    The largest distance of the two empirical distribution functions, sup_x |F(x) - G(x)|.
    """
    # In numpy, whose sort of floats is 17 times as fast as torch's on a CPU with AVX-512.
    columns = [np.sort(rows.T.numpy(), axis=1) for rows in (first, second)]
    values = np.sort(np.concatenate(columns, axis=1), axis=1)
    statistic = []
    for x, y, at in zip(*columns, values, strict=True):
        distance = x.searchsorted(at, side="right") / len(x) - y.searchsorted(at, side="right") / len(y)
        statistic.append(np.abs(distance).max())
    return torch.from_numpy(np.array(statistic))


def correlations(rows: Tensor) -> Tensor:
    """Pearson correlations (D, D) of the columns of (n, D); 0 with a constant column."""
    rows = rows.double()
    rows = rows - rows.mean(0)
    std = rows.square().mean(0).sqrt()
    rows = torch.where(std > 1e-6, rows / std, torch.zeros_like(rows))
    return rows.T @ rows / len(rows)


def correlation_error(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference between the correlations of all pairs of different columns."""
    difference = (correlations(first) - correlations(second)).abs()
    dim = len(difference)
    return (difference.sum() - difference.trace()).item() / (dim * (dim - 1))


def sliced_wasserstein(first: Tensor, second: Tensor, seed: int = 0) -> float:
    """Wasserstein-1 distance of (n, D) and (m, D) along random directions, mean over the directions.

    Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "projections"))
    directions = torch.randn(first.shape[1], NUM_PROJECTIONS, generator=generator)
    directions /= directions.norm(dim=0)
    count = min(len(first), len(second))
    quantiles = []
    for rows in (first, second):
        index = ((np.arange(count) + 0.5) * len(rows) / count).astype(np.int64)
        quantiles.append(np.sort((directions.T @ rows.T).numpy(), axis=1)[:, index])
    return float(np.abs(quantiles[0] - quantiles[1]).mean())


class Dynamics:
    """Ridge regression from random ReLU features of (observation, action) to reward and next observation.

    Args:
        rows: standardised rows (n, D) to fit.
        spec: their layout.
        seed: of the features.
    """

    def __init__(self, rows: Tensor, spec: TransitionSpec, seed: int = 0, ridge: float = 1e-3) -> None:
        self.num_inputs = spec.fields["action"].stop
        self.targets = slice(self.num_inputs, spec.fields["next_observation"].stop)
        generator = torch.Generator().manual_seed(derive_seed(seed, "random features"))
        weight = torch.randn(self.num_inputs + 1, NUM_FEATURES, generator=generator)
        self.weight = weight / self.num_inputs**0.5
        features = self.features(rows)
        gram = features.T @ features + ridge * len(rows) * torch.eye(features.shape[1], dtype=torch.float64)
        self.solution = torch.linalg.solve(gram, features.T @ rows[:, self.targets].double())

    def features(self, rows: Tensor) -> Tensor:
        """The inputs themselves, their random ReLU features, and 1: (n, inputs + features + 1)."""
        inputs = torch.cat([rows[:, : self.num_inputs], torch.ones(len(rows), 1)], dim=1)
        return torch.cat([inputs, (inputs @ self.weight).relu()], dim=1).double()

    def error(self, rows: Tensor) -> float:
        """Root mean squared error over reward and next observation of ``rows`` (n, D), standardised alike."""
        residual = rows[:, self.targets].double() - self.features(rows) @ self.solution
        return residual.square().mean().sqrt().item()
