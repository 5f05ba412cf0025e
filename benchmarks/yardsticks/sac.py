"""Soft Actor-Critic as its equations stand, in a plain PyTorch loop: acting, remembering, updating, one by one.

float32, a module for each critic, one Adam for each network, a loop over parameters for the targets, ``.item()``
for every metric, rows gathered from numpy arrays. By default the critics have LayerNorm, and actor and
temperature learn on every second update, as in the package's agent, so that both arms compute the same
(``tests/parity/test_yardsticks.py``).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


def make_critic(n_in: int, width: int, layer_norm: bool = True) -> nn.Sequential:
    def hidden(size: int) -> list[nn.Module]:
        norm = [nn.LayerNorm(width)] if layer_norm else []
        return [nn.Linear(size, width), *norm, nn.ReLU()]

    return nn.Sequential(*hidden(n_in), *hidden(width), nn.Linear(width, 1))


def make_actor(n_in: int, n_out: int, width: int) -> nn.Sequential:
    hidden = nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(width, 2 * n_out))


class SAC:
    """Networks, optimizers and one update."""

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        width: int = 256,
        lr: float = 1e-3,
        tau: float = 0.005,
        layer_norm: bool = True,
        actor_every: int = 2,
    ) -> None:
        self.actor = make_actor(state_dim, action_dim, width)
        self.critics = [make_critic(state_dim + action_dim, width, layer_norm) for _ in range(2)]
        self.targets = copy.deepcopy(self.critics)
        self.log_temperature = torch.tensor(math.log(0.1), requires_grad=True)
        critic_parameters = [p for critic in self.critics for p in critic.parameters()]
        self.critic_optimizer = torch.optim.Adam(critic_parameters, lr=lr)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=lr)
        self.temperature_optimizer = torch.optim.Adam([self.log_temperature], lr=lr)
        self.tau, self.target_entropy, self.num_updates = tau, -float(action_dim), 0
        self.actor_every = actor_every

    def sample(self, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.actor(state).chunk(2, dim=-1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (1 + torch.tanh(raw))
        u = mean + log_std.exp() * noise
        log_prob = Normal(mean, log_std.exp()).log_prob(u) - 2 * (math.log(2) - u - F.softplus(-2 * u))
        return torch.tanh(u), log_prob.sum(-1, keepdim=True)

    def update(self, batch: tuple[Tensor, ...], noise: Tensor) -> dict[str, float]:
        """One update; ``noise`` (2, B, A) is for the next action and the actor's."""
        state, action, reward, next_state, discount = batch
        with torch.no_grad():
            next_action, log_prob = self.sample(next_state, noise[0])
            following = torch.cat([next_state, next_action], dim=-1)
            next_q = torch.min(*(target(following) for target in self.targets))
            target = reward + discount * (next_q - self.log_temperature.exp() * log_prob)
        present = torch.cat([state, action], dim=-1)
        q1, q2 = (critic(present) for critic in self.critics)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        metrics = {"critic_loss": loss.item(), "critic_q": 0.5 * (q1 + q2).mean().item()}
        self.num_updates += 1
        if self.num_updates % self.actor_every == 0:
            metrics |= self._update_actor(state, noise[1])
        for target_net, critic in zip(self.targets, self.critics, strict=True):
            for slow, parameter in zip(target_net.parameters(), critic.parameters(), strict=True):
                slow.data.copy_(self.tau * parameter.data + (1 - self.tau) * slow.data)
        return metrics

    def _update_actor(self, state: Tensor, noise: Tensor) -> dict[str, float]:
        action, log_prob = self.sample(state, noise)
        q = torch.min(*(critic(torch.cat([state, action], dim=-1)) for critic in self.critics))
        actor_loss = (self.log_temperature.exp().detach() * log_prob - q).mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self.actor_optimizer.step()
        entropy = -log_prob.detach().mean()
        temperature_loss = self.log_temperature.exp() * (entropy - self.target_entropy)
        self.temperature_optimizer.zero_grad()
        temperature_loss.backward()
        self.temperature_optimizer.step()
        return {"actor_loss": actor_loss.item(), "actor_ent": entropy.item()}


class Memory:
    """Ring of transitions, an array for each field."""

    def __init__(self, capacity: int, state_dim: int, action_dim: int) -> None:
        sizes = (state_dim, action_dim, 1, state_dim, 1)
        self.fields = [np.zeros((capacity, size), np.float32) for size in sizes]
        self.capacity, self.num_added = capacity, 0

    def add(self, *values: Any) -> None:
        for field, value in zip(self.fields, values, strict=True):
            field[self.num_added % self.capacity] = value
        self.num_added += 1

    def sample(self, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        rows = rng.integers(min(self.num_added, self.capacity), size=size)
        return tuple(torch.from_numpy(field[rows]) for field in self.fields)
