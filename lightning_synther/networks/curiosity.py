"""Intrinsic Curiosity Module (Pathak et al. 2017, arXiv 1705.05363) over vector observations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_synther.networks.heads import MLP
from lightning_synther.transition import Transition


class CuriosityModule(nn.Module):
    """Features phi that an inverse model needs to tell the action, and a forward model of them.

    Inputs are standardised with the mean and deviation of the training transitions, part of the state.

    Args:
        observation_dim: O.
        action_dim: A.
        feature_dim: length of phi.
        hidden_dim: width of the hidden layers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, observation_dim: int, action_dim: int, feature_dim: int = 64, hidden_dim: int = 256
    ) -> None:
        super().__init__()
        self.features = MLP(observation_dim, feature_dim, hidden_dim, 1)
        self.inverse = MLP(2 * feature_dim, action_dim, hidden_dim, 1)
        self.forward_model = MLP(feature_dim + action_dim, feature_dim, hidden_dim, 2)
        self.register_buffer("mean", torch.zeros(observation_dim))
        self.register_buffer("std", torch.ones(observation_dim))

    def standardise(self, observation: Tensor) -> None:
        """Take mean and deviation of observations (N, O); constant columns stay as they are."""
        self.mean.copy_(observation.mean(0))
        std = observation.std(0)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def errors(self, transition: Transition) -> tuple[Tensor, Tensor]:
        """Mean squared errors (B,) of the forward model, its target held fixed, and of the inverse model."""
        observations = torch.stack([transition.observation, transition.next_observation])
        phi, phi_next = self.features((observations - self.mean) / self.std)
        predicted = self.forward_model(torch.cat([phi, transition.action], dim=-1))
        action = self.inverse(torch.cat([phi, phi_next], dim=-1))
        forward_error = F.mse_loss(predicted, phi_next.detach(), reduction="none").mean(-1)
        return forward_error, F.mse_loss(action, transition.action, reduction="none").mean(-1)

    def forward(self, transition: Transition) -> Tensor:
        """Curiosity (B, 1): the forward model's error."""
        return self.errors(transition)[0][:, None]
