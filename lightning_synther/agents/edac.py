"""What EDAC (An et al. 2021, arXiv 2110.01548) adds to the losses of Soft Actor-Critic.

Shapes: B batch, A action dimension, E critics in the ensemble.
"""

from __future__ import annotations

import torch
from torch import Tensor


def action_gradients(q: Tensor, action: Tensor) -> Tensor:
    """Gradient (E, B, A) of each critic's value ``q`` (E, B, 1) in its own copy of the ``action`` (E, B, A).

    It can be differentiated again.
    """
    with torch.autocast(q.device.type, enabled=False):
        return torch.autograd.grad(q.sum(), action, create_graph=True)[0]


def diversity_loss(gradients: Tensor) -> Tensor:
    """Equation 3: batch mean of the cosines between critics' action gradients (E, B, A), over ordered pairs,
    divided by E - 1.

    The sum over pairs of unit vectors is |sum_e g_e|^2 - sum_e |g_e|^2, which needs no (E, E) matrix.
    """
    unit = gradients / (gradients.norm(dim=-1, keepdim=True) + 1e-10)
    pairs = unit.sum(0).square().sum(-1) - unit.square().sum((0, 2))
    return pairs.mean() / (len(gradients) - 1)
