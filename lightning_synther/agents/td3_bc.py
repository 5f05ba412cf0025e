"""What TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860) adds to the losses of DrQ-v2 and BC.

Its critic loss is that of DrQ-v2, its actor loss (Equation 3) DrQ-v2's of one critic, weighted as in `drqv2`,
plus that of BC.
"""

from __future__ import annotations

from torch import Tensor


def smoothed_action(
    action: Tensor, noise: Tensor, policy_noise: float, noise_clip: float, max_action: float
) -> Tensor:
    """Target action (B, A) with clipped noise (TD3, Fujimoto et al. 2018, Equation 14).

    ``noise`` is standard normal (B, A); ``policy_noise`` its scale, in units of the action.
    """
    noise = (noise * policy_noise).clamp(-noise_clip, noise_clip)
    return (action + noise).clamp(-max_action, max_action)
