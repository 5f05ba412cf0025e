"""Stochastic actors: the tanh-Gaussian of Soft Actor-Critic, and a plain Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_synther.networks.heads import MLP


class GaussianActor(nn.Module):
    """A Gaussian over what becomes an action through tanh (Haarnoja et al. 2018, Appendix C).

    The log standard deviation is a tanh scaled to ``log_std_bounds``; clamping would stop its gradient at a
    bound. The last layer of ``policy`` holds the means, then the raw log standard deviations.
    """

    def __init__(
        self, trunk: nn.Module, policy: MLP, log_std_bounds: tuple[float, float] = (-5.0, 2.0)
    ) -> None:
        super().__init__()
        self.trunk, self.policy, self.log_std_bounds = trunk, policy, log_std_bounds

    def gaussian(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before tanh, both (B, A), for the encoder's output."""
        mean, raw = self.policy(self.trunk(features)).chunk(2, dim=-1)
        low, high = self.log_std_bounds
        return mean, low + 0.5 * (high - low) * (1 + torch.tanh(raw))

    def forward(self, features: Tensor) -> Tensor:
        """Action (B, A) in (-1, 1) without noise: tanh of the mean."""
        return torch.tanh(self.gaussian(features)[0])


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
