"""What REDQ (Chen et al. 2021, arXiv 2101.05982) changes in the losses of Soft Actor-Critic.

Shapes: B batch, E critics in the ensemble, M of them in the random subset.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

TargetMode = Literal["min", "ave"]


def target_values(next_q: Tensor, members: Tensor, mode: TargetMode) -> Tensor:
    """Values that the target takes the smallest of, from those of all target critics (E, B, 1).

    "min": the random subset ``members`` (M,), so (M, B, 1), as in Equation 1. "ave": their mean over all
    critics, (1, B, 1), as in the paper's ablation.
    """
    return next_q[members] if mode == "min" else next_q.mean(0, keepdim=True)


def actor_loss(q: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """Algorithm 1, line 10: the batch mean of temperature log pi(a|s) - mean_e Q_e(s, a), ``q`` (E, B, 1)."""
    return (temperature * log_prob - q.mean(0)).mean()
