"""Losses of Implicit Q-Learning (Kostrikov, Nair and Levine 2021, arXiv 2110.06169).

Shapes: B batch, A action dimension, E critics in the ensemble.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def advantage(q: Tensor, value: Tensor) -> Tensor:
    """min_e Q_e(s, a) - V(s), (B, 1), for the target critics' ``q`` (E, B, 1)."""
    return q.amin(0) - value


def value_loss(advantage: Tensor, expectile: float) -> Tensor:
    """Equation 5: batch mean of |expectile - 1(advantage < 0)| advantage^2."""
    weight = torch.where(advantage < 0, 1 - expectile, expectile)
    return (weight * advantage.square()).mean()


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Equation 6: squared error (E, B, 1) to r + discount V(s'), averaged over batch and critics."""
    return (q - target).square().mean()


def regression_weight(advantage: Tensor, beta: float, limit: float) -> Tensor:
    """Weight (B, 1) of a sample in Equation 7, exp(beta advantage) up to ``limit``, without gradient."""
    return (beta * advantage.detach()).exp().clamp(max=limit)


def gaussian_cost(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Negative log density (B, 1) of ``action`` (B, A) under the policy, a Gaussian that is not squashed."""
    error = (action - mean) * (-log_std).exp()
    return (0.5 * error.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1, keepdim=True)


def deterministic_cost(policy_action: Tensor, action: Tensor) -> Tensor:
    """Squared distance (B, 1) between the policy's and the data's actions, both (B, A)."""
    return (policy_action - action).square().sum(-1, keepdim=True)


def actor_loss(weight: Tensor, cost: Tensor) -> Tensor:
    """Equation 7: the batch mean of the cost of the data's actions, weighted by their advantage."""
    return (weight * cost).mean()
