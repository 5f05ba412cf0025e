"""How wrong generated transitions are, with intervals, and whether one sampler is worse than another.

Scores are arrays (1 + resamples, 6): the first row is that of all records, the others are of bootstrap resamples of
held-out and generated records. Resample k draws the same held-out records for every sampler and every network, so that
differences are paired.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from lightning_synther.data.store import TransitionStore
from lightning_synther.networks.heads import MLP
from lightning_synther.synthesis.dynamics import Dynamics
from lightning_synther.synthesis.joint import correlation_error, sliced_wasserstein
from lightning_synther.synthesis.marginals import ks_statistic
from lightning_synther.transition import TransitionSpec

ERRORS = ("sliced_wasserstein", "ks", "correlation", "dependence", "transfer", "scatter")
COMPARED = len(ERRORS) - 1
#: Differences that do not matter: a tenth of the reference's error, or, for errors close to zero, this much
#: (standard deviations of a column; correlations; KS).
MARGIN, SMALL = 0.1, 0.01


class Predictor:
    """Reward and next observation from observation and action, learned from standardised rows (N, D)."""

    def __init__(self, rows: Tensor, spec: TransitionSpec, updates: int = 3000) -> None:
        torch.manual_seed(0)
        self.inputs = spec.fields["action"].stop
        self.targets = slice(self.inputs, spec.fields["next_observation"].stop)
        self.net = MLP(self.inputs, self.targets.stop - self.targets.start, 256, 2)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3, fused=True)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        for _ in range(updates):
            batch = rows[torch.randint(len(rows), (256,))]
            loss = (self.net(batch[:, : self.inputs]) - batch[:, self.targets]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()

    @torch.no_grad()
    def squared_errors(self, rows: Tensor) -> Tensor:
        """Mean squared error (N,) of each row."""
        return (self.net(rows[:, : self.inputs]) - rows[:, self.targets]).square().mean(dim=1)


class Judge:
    """The errors of rows against held-out ones, and of bootstrap resamples of both."""

    def __init__(
        self, train: TransitionStore, heldout: TransitionStore, num_rows: int, resamples: int
    ) -> None:
        rows = train.mapped.clone()
        std = rows.std(0)
        self.mean, self.std = rows.mean(0), torch.where(std > 1e-6, std, torch.ones_like(std))
        rng = np.random.default_rng(0)
        count = min(num_rows, len(heldout))
        self.heldout = self._standardise(heldout.mapped[rng.choice(len(heldout), count, replace=False)])
        self.floor_rows = rows[rng.choice(len(rows), min(num_rows, len(rows)), replace=False)]
        self.train_rows, self.spec = rows, train.spec
        self.predictor = Predictor(self._standardise(rows), train.spec)
        self.resamples = resamples

    def _standardise(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std

    def scores(self, rows: Tensor) -> np.ndarray:
        """Errors (1 + resamples, 6) of ``rows`` in data units; the first is that of all rows."""
        rows = self._standardise(rows)
        squared, real_squared = (self.predictor.squared_errors(part) for part in (rows, self.heldout))
        result = [self._errors(rows, self.heldout, squared, real_squared)]
        for k in range(self.resamples):
            rng = np.random.default_rng(k)
            real, fake = (
                rng.integers(len(self.heldout), size=len(self.heldout)),
                rng.integers(len(rows), size=len(rows)),
            )
            parts = rows[fake], self.heldout[real], squared[fake], real_squared[real]
            result.append(self._errors(*parts))
        return np.array(result)

    def _errors(self, rows: Tensor, heldout: Tensor, squared: Tensor, real_squared: Tensor) -> list[float]:
        scatter = (squared.mean().sqrt() - real_squared.mean().sqrt()).item()
        return [
            sliced_wasserstein(rows, heldout),
            ks_statistic(rows, heldout).mean().item(),
            correlation_error(rows, heldout),
            abs(scatter),
            Dynamics(rows, self.spec).error(heldout),
            scatter,
        ]


class Mean(NamedTuple):
    """A mean over training seeds, and half of its 95 % interval."""

    value: float
    half: float


def mean_over_seeds(scores: np.ndarray) -> list[Mean]:
    """Of scores (seeds, 1 + resamples, 6), each error's mean.

    Two sources of chance add up: which records were drawn (the bootstrap's deviation of the mean over seeds), and how a
    network came out (deviation between seeds; Student's t, as seeds are few; left out for a single one).
    """
    seeds = len(scores)
    drawn = 1.96 * scores[:, 1:].mean(0).std(0)
    trained = np.zeros_like(drawn)
    if seeds > 1:
        trained = stats.t.ppf(0.975, seeds - 1) * scores[:, 0].std(0, ddof=1) / np.sqrt(seeds)
    return [
        Mean(*pair)
        for pair in zip(scores[:, 0].mean(0).tolist(), np.hypot(drawn, trained).tolist(), strict=True)
    ]


class Verdict(NamedTuple):
    """Errors on which a sampler is worse than the reference, and those on which nobody can tell.

    Worse: the interval of the difference lies above zero, and the difference above the margin. Unsettled: neither that,
    nor does the interval end below the margin.
    """

    worse: list[str]
    unsettled: list[str]


def verdict(scores: np.ndarray, reference: np.ndarray) -> Verdict:
    """Compare scores (seeds, 1 + resamples, 6), paired by training seed and resample."""
    result = Verdict([], [])
    base = reference[:, 0].mean(0)
    for name, difference, error in zip(
        ERRORS[:COMPARED], mean_over_seeds(scores - reference), base, strict=False
    ):
        margin = max(MARGIN * float(error), SMALL)
        if difference.value - difference.half > 0 and difference.value > margin:
            result.worse.append(name)
        elif difference.value + difference.half > margin:
            result.unsettled.append(name)
    return result
