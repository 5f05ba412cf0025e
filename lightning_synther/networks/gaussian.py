"""The stochastic actor of Soft Actor-Critic."""

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
