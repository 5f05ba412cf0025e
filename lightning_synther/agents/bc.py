"""Loss of behaviour cloning."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bc_loss(action: Tensor, data_action: Tensor) -> Tensor:
    """Mean squared error between the policy's and the data's actions, both (B, A).

    V-D4RL's BC (Lu et al. 2023, Section 4) compares a *sample* of the exploration distribution, not its mean.
    """
    return F.mse_loss(action, data_action)
