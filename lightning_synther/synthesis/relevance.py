"""Relevance functions: from transitions to the numbers (N, C) that generation is conditioned on.

Prioritized Generative Replay (Wang et al. 2024, arXiv 2410.18082) is a diffusion model conditioned on one of
these, by default ``curiosity``, and sampled at its largest values; a config says which. A function of your own
needs no place here: write its values with `write_condition`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_synther.agents.agent import Agent
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.curiosity import CuriosityModule
from lightning_synther.transition import Transition


def reward(transition: Transition) -> Tensor:
    """The (n-step) reward itself."""
    return transition.reward


def terminal(transition: Transition) -> Tensor:
    """1 where the episode ended for good, else 0."""
    return (transition.discount == 0).to(transition.reward.dtype)


def return_to_go(transition: Transition, episode: Tensor, stride: int = 1) -> Tensor:
    """Discounted sum of the rewards from each transition to the end of what its episode stored.

    G_t = r_t + discount_t G_{t + n}, for rows in the order of time. ``episode`` (N, 1) numbers the episodes,
    equal numbers next to each other; ``stride`` is how many rows later the n-step transition ends (n, times
    the views of each transition). Transitions near the time limit see fewer rewards than those before.

    >>> ones, ids = torch.ones(4, 1), torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    >>> return_to_go(Transition(ones, ones, ones, ones, 0.5 * ones), ids).squeeze(1)
    tensor([1.7500, 1.5000, 1.0000, 1.0000])
    """
    if episode.shape != transition.reward.shape:
        raise DataError(
            f"return_to_go needs an episode number for each of {len(transition.reward)} transitions, "
            f"got {tuple(episode.shape)}"
        )
    returns = transition.reward.double().clone()
    discount, number = transition.discount.double(), episode.squeeze(1)
    _, lengths = torch.unique_consecutive(number, return_counts=True)
    for rows in torch.arange(len(returns)).split(lengths.tolist()):
        first, length = int(rows[0]), len(rows)
        for start in range((length - 1) // stride * stride, 0, -stride):
            # All transitions that start within one stride depend on those of the next alone.
            stop = min(start + stride, length)
            later = returns[first + start : first + stop]
            now = slice(first + start - stride, first + stop - stride)
            returns[now] += discount[now] * later
    return returns.to(transition.reward.dtype)


@torch.no_grad()
def td_error(transition: Transition, agent: Agent) -> Tensor:
    """|r + discount * min_e Q'_e(s', pi(s')) - mean_e Q_e(s, a)|, as prioritised replay ranks transitions
    (Schaul et al. 2016, arXiv 1511.05952), with the agent's policy without noise. Computed where the agent is;
    the result is on the CPU.
    """
    critic, target = critics(agent)
    now, action, reward, later, discount = (part.to(agent.device) for part in transition)
    next_q = target(agent.encoder(later), agent.policy(later)).amin(0)
    q = critic(agent.encoder(now), action).mean(0)
    return (reward + discount * next_q - q).abs().cpu()


def critics(agent: Agent) -> tuple[nn.Module, nn.Module]:
    """Critic and target critic of ``agent``; raises `ConfigError` where it has none."""
    critic, target = getattr(agent, "critic", None), getattr(agent, "critic_target", None)
    if not isinstance(critic, nn.Module) or not isinstance(target, nn.Module):
        raise ConfigError(
            f"relevance 'td_error' needs an agent with a critic and its target, {type(agent).__name__} has "
            "none: use DrQ-v2, TD3+BC or SAC, or another relevance"
        )
    return critic, target


@torch.no_grad()
def curiosity(transition: Transition, module: CuriosityModule) -> Tensor:
    """Logarithm of the forward model's error: surprise has a long tail, which would leave all else at 0."""
    return module(transition).clamp_min(1e-12).log()
