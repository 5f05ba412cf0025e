"""Policy guidance: synthetic actions drawn towards those of an agent (Policy-Guided Diffusion, Jackson et al.
2024, arXiv 2404.06356).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_synther.agents.agent import Agent
from lightning_synther.diffusion.guidance import LogDensity
from lightning_synther.diffusion.normalizer import Normalizer
from lightning_synther.errors import ConfigError
from lightning_synther.transition import TransitionSpec


def policy_log_density(
    agent: Agent, normalizer: Normalizer, spec: TransitionSpec, *, std: float = 0.3, weight: float = 1.0
) -> LogDensity:
    """weight * ln N(a; pi(s), std**2) of normalised rows, as a function for `Guidance`.

    The policy counts as a Gaussian around its action without noise, as in the paper; its gradient is that
    with respect to the action, s is held fixed. The estimate of a clean action is still uncertain by some
    variance; a Gaussian with that variance added is what the density is on average, and it keeps the gradient
    from overshooting at large noise.

    Args:
        agent: on states or latents, as the rows are.
        normalizer: of the diffusion model, already fitted.
        spec: layout of the rows.
        std: deviation of the policy's Gaussian, in units of actions.
        weight: lambda of the paper; divides the policy's variance.

    Raises `ConfigError` for an agent of other observations or actions than the rows'.
    """
    found = agent.perception.shape, agent.perception.action_dim
    wanted = (spec.observation_dim,), spec.action_dim
    if agent.hparams["observation"] == "pixels" or found != wanted:
        raise ConfigError(
            f"the policy takes observations {found[0]} and {found[1]} action dimensions, the rows have "
            f"{wanted[0]} and {wanted[1]}: give an agent on these latents or states"
        )
    if std <= 0 or weight < 0:
        raise ConfigError(f"policy_std {std} must be above 0 and policy_guidance {weight} not below")
    observation, action = spec.fields["observation"], spec.fields["action"]
    agent.eval()

    def log_density(x: Tensor, variance: Tensor) -> Tensor:
        rows = normalizer.inverse(x)
        if next(agent.parameters()).device != rows.device:
            agent.to(rows.device)
        with torch.no_grad():
            towards = agent.policy(rows[:, observation])
            low = rows.detach().clone()
            low[:, action] = towards
            target = normalizer(low)[:, action]
            one_std = _scale(normalizer, spec)[action]
            policy_variance = (std / one_std).square() / max(weight, 1e-12) + variance
        return -0.5 * ((x[:, action] - target).square() / policy_variance).sum(dim=-1)

    return log_density


def _scale(normalizer: Normalizer, spec: TransitionSpec) -> Tensor:
    """Data units (D,) in one normalised unit of each column; the normaliser is affine."""
    ends = torch.zeros(2, spec.dim, device=normalizer.constant.device)
    ends[1] = 1.0
    low, high = normalizer.inverse(ends)
    return high - low
