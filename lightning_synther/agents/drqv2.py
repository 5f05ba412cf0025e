"""Losses of DrQ-v2 (Yarats et al. 2021, arXiv 2107.09645) and of its offline form with TD3+BC's
regularisation.

Shapes: B batch, A action dimension, E critics in the ensemble.
"""

from __future__ import annotations

from torch import Tensor


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Equation 2 of DrQ-v2: squared error (E, B, 1), averaged over the batch, summed over critics."""
    return (q - target).square().mean((1, 2)).sum()


def actor_loss(q: Tensor) -> Tensor:
    """Equation 4 of DrQ-v2: the negative batch mean of min_e Q_e(s, pi(s)), for ``q`` (E, B, 1)."""
    return -q.amin(0).mean()


def mean_magnitude(q: Tensor) -> Tensor:
    """Batch mean of |min_e Q_e(s, pi(s))|, for ``q`` (E, B, 1), without gradient: the scale of the values."""
    return q.detach().amin(0).abs().mean()


def value_weight(bc_weight: float, magnitude: Tensor) -> Tensor:
    """Weight of the value term, lambda = alpha / mean |Q| (TD3+BC, Fujimoto and Gu 2021, Equation 5).

    ``magnitude`` is `mean_magnitude`, averaged over all ranks, so that lambda is that of the whole batch.
    """
    return bc_weight / magnitude
