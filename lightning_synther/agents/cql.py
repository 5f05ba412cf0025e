"""Losses of Conservative Q-Learning (Kumar et al. 2020, arXiv 2006.04779).

Added to the temporal-difference loss, they lower the values of actions that the data do not show. Shapes: B
batch, A action dimension, E critics in the ensemble, R actions drawn from each of three distributions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Candidates(NamedTuple):
    """Actions to be held against the data's: ``action`` (B, 3R, A) with their ``log_density`` (B, 3R).

    R are uniform, R come from the policy at the next observation, R from the policy at the current one.
    """

    action: Tensor
    log_density: Tensor


def candidates(random: Tensor, following: Candidates, current: Candidates) -> Candidates:
    """Join uniform actions ``random`` (B, R, A) in [-1, 1) and R actions of each policy, without gradient."""
    uniform = torch.full_like(random[..., 0], -random.shape[-1] * math.log(2))
    return Candidates(
        torch.cat([random, following.action, current.action], dim=1).detach(),
        torch.cat([uniform, following.log_density, current.log_density], dim=1).detach(),
    )


def contrast(q_data: Tensor, q: Tensor, log_density: Tensor, importance_sampling: bool) -> Tensor:
    """What the soft maximum runs over, (E, B, M), for values (E, B, 1) of the data's action and (E, B, 3R) of
    the candidates.

    With importance sampling (Appendix F: Q - log density) an estimate of log-sum-exp over all actions;
    without, the candidates and the data's action as they are.
    """
    return q - log_density if importance_sampling else torch.cat([q_data, q], dim=-1)


def gap(
    contrasted: Tensor,
    q_data: Tensor,
    temperature: float,
    clip: tuple[float, float] = (-math.inf, math.inf),
) -> Tensor:
    """Each critic's conservative gap (E,): the term of Equation 4, the batch mean of
    temperature log sum exp(Q / temperature) - Q(data), each sample of it within ``clip``.
    """
    soft_maximum = temperature * torch.logsumexp(contrasted / temperature, dim=-1)
    return (soft_maximum - q_data.squeeze(-1)).clamp(*clip).mean(-1)


def multiplier(log_multiplier: Tensor) -> Tensor:
    """Lagrange multiplier of the gap's constraint, exp(log_multiplier) up to 1e6."""
    return log_multiplier.exp().clamp(0.0, 1e6)


def multiplier_loss(log_multiplier: Tensor, penalty: Tensor, threshold: float) -> Tensor:
    """Dual loss (Equation 30): the multiplier grows where the weighted gaps (E,) exceed the threshold."""
    return -(multiplier(log_multiplier) * (penalty.detach() - threshold)).mean()
