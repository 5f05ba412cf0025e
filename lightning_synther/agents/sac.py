"""Losses of Soft Actor-Critic (Haarnoja et al. 2018, arXiv 1812.05905); its critic loss is that of DrQ-v2.

Shapes: B batch, A action dimension, E critics in the ensemble. Every draw is an argument.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_synther.agents.targets import td_target


def squash(mean: Tensor, log_std: Tensor, noise: Tensor, epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    """Reparametrised tanh-Gaussian: the action (B, A) for standard normal ``noise``, its log density (B, 1).

    Appendix C of the paper, with log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), which does not lose
    digits where tanh saturates. With ``epsilon`` it is log(1 - tanh(u)^2 + epsilon), as some published code
    has it; the density is then bounded.
    """
    u = torch.addcmul(mean, log_std.exp(), noise)
    return u.tanh(), _log_density(u, noise, log_std, epsilon)


def log_density(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Log density (B, 1) of given actions (B, A) under a tanh-Gaussian; those of +-1 count as almost that."""
    limit = 1 - 1e-6
    u = action.clamp(-limit, limit).atanh()
    return _log_density(u, (u - mean) * (-log_std).exp(), log_std)


def _log_density(u: Tensor, noise: Tensor, log_std: Tensor, epsilon: float = 0.0) -> Tensor:
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    if epsilon > 0:
        log_derivative = (1 - u.tanh().square() + epsilon).log()
    else:
        log_derivative = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return (log_normal - log_derivative).sum(-1, keepdim=True)


def soft_target(
    reward: Tensor, discount: Tensor, next_q: Tensor, next_log_prob: Tensor, temperature: Tensor
) -> Tensor:
    """Target value (B, 1) of Equations 3 and 5: r + discount (min_e Q_e(s', a') - temperature log pi(a'|s')).

    ``next_q`` is (E, B, 1), the other arguments are (B, 1) and a scalar.
    """
    return td_target(reward, discount, next_q - temperature * next_log_prob)


def actor_loss(q: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """Equation 9: the batch mean of temperature log pi(a|s) - min_e Q_e(s, a), for ``q`` (E, B, 1)."""
    return (temperature * log_prob - q.amin(0)).mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Equation 18, the batch mean of -temperature (log pi(a|s) + target entropy); no gradient to the policy.

    The objective of "Algorithms and Applications" (arXiv 1812.05905, section 5).
    """
    return -log_temperature.exp() * (log_prob.detach().mean() + target_entropy)


def log_temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """`temperature_loss` with the logarithm in the temperature's place, as most published code has it.

    Its gradient has the same sign, but does not vanish with the temperature.
    """
    return -log_temperature * (log_prob.detach().mean() + target_entropy)
