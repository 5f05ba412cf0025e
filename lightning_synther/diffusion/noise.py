"""Noise levels: the ones that training draws, and the ones that sampling walks through (Karras et al.
2022)."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_synther.errors import ConfigError

Schedule = Literal["edm", "log", "straight"]
"""How noise levels are spaced: EDM's power law, uniform in log sigma, uniform in t = sigma / (1 + sigma)."""


def training_sigma(standard_normal: Tensor, P_mean: float = -1.2, P_std: float = 1.2) -> Tensor:
    """Log-normal training noise levels, ln sigma ~ N(P_mean, P_std**2) (Table 1), from standard normals
    (B,)."""
    return (P_mean + P_std * standard_normal).exp()


def quantile_sigmas(num_levels: int, P_mean: float = -1.2, P_std: float = 1.2) -> list[float]:
    """Midpoints of ``num_levels`` equally probable slices of the training distribution, ascending.

    A loss averaged over them estimates the training loss without drawing noise levels.
    """
    normal = NormalDist(P_mean, P_std)
    return [math.exp(normal.inv_cdf((k + 0.5) / num_levels)) for k in range(num_levels)]


def edm_schedule(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> list[float]:
    """Sampling noise levels sigma_max = sigma_0 > ... > sigma_{N-1} = sigma_min, then 0 (equation 5).

    ``rho`` moves steps towards small noise as it grows; ``rho=inf`` is uniform in log sigma. Raises
    `ConfigError` for levels that are not 0 < sigma_min < sigma_max.
    """
    if not (0 < sigma_min < sigma_max and num_steps >= 1 and rho > 0):
        raise ConfigError(
            f"num_steps {num_steps}, sigma_min {sigma_min}, sigma_max {sigma_max}, rho {rho} is no schedule: "
            "give 0 < sigma_min < sigma_max, at least 1 step, and rho > 0"
        )
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    if math.isinf(rho):
        low, high = math.log(sigma_min), math.log(sigma_max)
        sigmas = (high + ramp * (low - high)).exp()
    else:
        low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
        sigmas = (high + ramp * (low - high)) ** rho
    return [*sigmas.tolist(), 0.0]


def noise_schedule(
    schedule: Schedule, num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> list[float]:
    """Sampling noise levels by the name of their spacing, descending from sigma_max to sigma_min, then 0.

    ``edm`` uses ``rho``; ``log`` is its limit for rho to infinity; ``straight`` has equal steps on the
    straight paths of flow matching.
    """
    if schedule not in get_args(Schedule):
        raise ConfigError(f"schedule {schedule!r} is unknown: choose from {', '.join(get_args(Schedule))}")
    sigmas = edm_schedule(num_steps, sigma_min, sigma_max, math.inf if schedule == "log" else rho)
    if schedule != "straight":
        return sigmas
    start, end = sigma_max / (1 + sigma_max), sigma_min / (1 + sigma_min)
    times = torch.linspace(start, end, num_steps, dtype=torch.float64)
    return [*(times / (1 - times)).tolist(), 0.0]
