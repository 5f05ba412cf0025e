"""Targets of temporal-difference learning: the bootstrapped value, and the slow copy of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def td_target(reward: Tensor, discount: Tensor, next_q: Tensor) -> Tensor:
    """Target value (B, 1): r + discount * min_e Q_e(s', a') (clipped double Q, Fujimoto et al. 2018,
    Equation 10).

    ``reward`` and ``discount`` are (B, 1), ``discount`` being gamma**n times the environment's; ``next_q`` is
    (E, B, 1), from the target critics.
    """
    return torch.addcmul(reward, discount, next_q.amin(0))


@torch.no_grad()
def soft_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move every parameter of ``target`` the share ``tau`` of its way to ``online``, in place."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)


def make_target(target: nn.Module, online: nn.Module) -> nn.Module:
    """Make ``target`` a copy of ``online``, of the same kind, that no optimizer trains; returns it."""
    target.load_state_dict(online.state_dict())
    return target.requires_grad_(False)
