"""Figures that summarise episode returns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.rollout import EpisodeResult


def normalized_score(returns: ArrayLike) -> float:
    """Mean return over 10: dm_control's lie in [0, 1000], scores in [0, 100] (V-D4RL, Lu et al. 2023)."""
    return float(np.asarray(returns, dtype=np.float64).mean()) / 10


def standard_error(values: ArrayLike) -> float:
    """Standard deviation of the sample (n - 1) over the square root of n; 0 for a single value."""
    values = np.asarray(values, dtype=np.float64)
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0


def bootstrap_interval(
    values: ArrayLike, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979), the same for the same ``seed``."""
    values = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(values.size, size=(num_resamples, values.size))
    low, high = np.quantile(values[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_summary(returns: Sequence[float]) -> dict[str, float | int | list[float]]:
    """What a run reports about its evaluation, in plain types for JSON; `ConfigError` without any episode."""
    if len(returns) == 0:
        raise ConfigError("no evaluation episode was run: set eval_episodes to 1 or more")
    low, high = bootstrap_interval(returns)
    return {
        "return_mean": float(np.mean(returns)),
        "return_stderr": standard_error(returns),
        "return_low": low,
        "return_high": high,
        "return_min": float(np.min(returns)),
        "return_max": float(np.max(returns)),
        "episodes": len(returns),
        "normalized_score": normalized_score(returns),
        "returns": [float(value) for value in returns],
    }


def unique_results(results: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    """Each seed once, in order of first appearance: distributed samplers repeat some to fill up ranks."""
    unique: dict[int, EpisodeResult] = {}
    for result in results:
        unique.setdefault(result.seed, result)
    return list(unique.values())
