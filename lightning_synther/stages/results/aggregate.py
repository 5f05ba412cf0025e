"""The scores of a group of runs in a few figures: interquartile means over seeds and tasks, with bootstrap intervals.

Scores, one a run and task, are summarised as Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice",
arXiv 2108.13264) recommend: the interquartile mean, with percentile intervals of a bootstrap that resamples the runs of
each task on their own. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_synther.stages.results.run_scores import Group

NUM_RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Aggregate:
    """Scores of one arm of a group: interquartile mean and its interval, mean, extremes; numbers of runs and tasks."""

    iqm: float
    low: float
    high: float
    mean: float
    minimum: float
    maximum: float
    num_runs: int
    num_tasks: int


def interquartile_mean(scores: Sequence[NDArray[np.float64]]) -> float:
    """Mean of the middle half of all scores of all tasks (25 % trimmed from either end)."""
    from scipy.stats import trim_mean

    return float(trim_mean(np.concatenate(list(scores)), 0.25))


def stratified_interval(
    scores: Sequence[NDArray[np.float64]],
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the interquartile mean, resampling each task's scores (n,) on their own."""
    from scipy.stats import trim_mean

    rng = np.random.default_rng(seed)
    drawn = [values[rng.integers(len(values), size=(num_resamples, len(values)))] for values in scores]
    means = trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def aggregate(group: Group, arm: str) -> Aggregate | None:
    """Figures of one arm, or None where no run of the group has it."""
    scores = group.scores(arm)
    if not scores:
        return None
    values = np.concatenate(scores)
    low, high = stratified_interval(scores)
    return Aggregate(
        interquartile_mean(scores),
        *(low, high, float(values.mean()), float(values.min()), float(values.max())),
        *(len(values), len(scores)),
    )
