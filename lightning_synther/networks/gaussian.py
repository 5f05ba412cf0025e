"""Stochastic actors: the tanh-Gaussian of Soft Actor-Critic, and a plain Gaussian."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_synther.networks.heads import MLP


class GaussianActor(nn.Module):
    """A Gaussian over what becomes an action through tanh (Haarnoja et al. 2018, Appendix C).

    The last layer of ``policy`` holds the means, then what becomes the log standard deviations: a tanh
    scaled to ``log_std_bounds``, because clamping would stop the gradient at a bound. Actions are the tanh
    times ``max_action``.
    """

    def __init__(
        self,
        trunk: nn.Module,
        policy: MLP,
        log_std_bounds: tuple[float, float] = (-5.0, 2.0),
        max_action: float = 1.0,
    ) -> None:
        super().__init__()
        self.trunk, self.policy = trunk, policy
        self.log_std_bounds, self.max_action = log_std_bounds, max_action

    def log_std(self, raw: Tensor) -> Tensor:
        """Log standard deviations within their bounds, for the network's output."""
        low, high = self.log_std_bounds
        return low + 0.5 * (high - low) * (1 + torch.tanh(raw))

    def gaussian(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before tanh, both (B, A), for the encoder's output."""
        mean, raw = self.policy(self.trunk(features)).chunk(2, dim=-1)
        return mean, self.log_std(raw)

    def forward(self, features: Tensor) -> Tensor:
        """Action (B, A) without noise: tanh of the mean, times the largest action."""
        return torch.tanh(self.gaussian(features)[0]) * self.max_action


class ClampedGaussianActor(GaussianActor):
    """The same with clamped log standard deviations, as REDQ and EDAC have it."""

    def log_std(self, raw: Tensor) -> Tensor:
        """Log standard deviations, clamped to their bounds."""
        return raw.clamp(*self.log_std_bounds)


class AffineGaussianActor(ClampedGaussianActor):
    """The same with one learned scale and offset of the log standard deviations, as in the published CQL."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.log_std_multiplier = nn.Parameter(torch.tensor(1.0))
        self.log_std_offset = nn.Parameter(torch.tensor(-1.0))

    def log_std(self, raw: Tensor) -> Tensor:
        """Log standard deviations, clamped to their bounds after the affine map."""
        return super().log_std(self.log_std_multiplier * raw + self.log_std_offset)


class UnsquashedGaussianActor(nn.Module):
    """A Gaussian over actions in [-1, 1], with one learned standard deviation for each of them (IQL).

    Its density is not corrected for the bounds. ``log_std_bounds`` are those of the log deviation.
    """

    def __init__(
        self,
        trunk: nn.Module,
        policy: MLP,
        action_dim: int,
        log_std_bounds: tuple[float, float] = (-5.0, 2.0),
    ) -> None:
        super().__init__()
        self.trunk, self.policy, self.log_std_bounds = trunk, policy, log_std_bounds
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def gaussian(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, A) and log standard deviation (A,), for the encoder's output."""
        return self.policy(self.trunk(features)), self.log_std.clamp(*self.log_std_bounds)

    def forward(self, features: Tensor) -> Tensor:
        """Action (B, A) without noise: the mean, within [-1, 1]."""
        return self.gaussian(features)[0].clamp(-1, 1)
