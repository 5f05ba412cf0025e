"""The exploration distribution of DrQ-v2: a Normal whose samples, not its density, are truncated."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class TruncatedNormal(NamedTuple):
    """Normal(mean, std) over actions, with samples clamped to the open interval (-1, 1).

    ``mean`` is (B, A); ``std`` is one number, or a tensor that broadcasts. Densities are those of the plain
    Normal, without a correction for the truncation, as in the published code.
    """

    mean: Tensor
    std: float | Tensor

    def sample(self, noise: Tensor, clip: float | None = None) -> Tensor:
        """Action (B, A) for a standard normal ``noise``; ``clip`` bounds the scaled noise, as in TD3.

        The clamp to (-1, 1) is straight-through: the gradient with respect to the mean is 1 everywhere.
        """
        noise = noise * self.std
        if clip is not None:
            noise = noise.clamp(-clip, clip)
        action = self.mean + noise
        limit = 1 - 1e-6
        return action.detach().clamp(-limit, limit) + (action - action.detach())

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density of the plain Normal, elementwise (B, A)."""
        std = torch.as_tensor(self.std, dtype=self.mean.dtype, device=self.mean.device)
        return -0.5 * ((action - self.mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)

    def entropy(self) -> Tensor:
        """Entropy of the plain Normal, elementwise (B, A)."""
        std = torch.as_tensor(self.std, dtype=self.mean.dtype, device=self.mean.device)
        return (0.5 + 0.5 * math.log(2 * math.pi) + std.log()).expand_as(self.mean)
