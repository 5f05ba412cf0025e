"""Figures that summarise episode returns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.references import DM_CONTROL_REFERENCES, References
from lightning_synther.evaluation.rollout import EpisodeResult


def normalized_score(returns: ArrayLike, against: References = DM_CONTROL_REFERENCES) -> float:
    """100 (mean return - low) / (high - low) for references ``against`` = (low, high) (D4RL, Fu et al. 2020).

    dm_control's returns lie in [0, 1000], so there it is the mean return over 10 (V-D4RL, Lu et al. 2023).
    """
    low, high = against
    return 100 * (float(np.asarray(returns, dtype=np.float64).mean()) - low) / (high - low)


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


def score_summary(
    returns: Sequence[float], against: References | None = DM_CONTROL_REFERENCES
) -> dict[str, float | int | list[float]]:
    """What a run reports about its evaluation, in plain types for JSON; `ConfigError` without any episode.

    Without references to measure ``against`` there is no ``normalized_score``.
    """
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
        **({} if against is None else {"normalized_score": normalized_score(returns, against)}),
        "returns": [float(value) for value in returns],
    }


def unique_results(results: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    """Each seed once, in order of first appearance: distributed samplers repeat some to fill up ranks."""
    unique: dict[int, EpisodeResult] = {}
    for result in results:
        unique.setdefault(result.seed, result)
    return list(unique.values())
