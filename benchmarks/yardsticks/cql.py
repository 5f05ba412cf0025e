"""The published CQL update from pixels, computed step by step as its formulas stand.

As `yardsticks.drqv2`; and the features of an observation are repeated for each of its actions, so that the
trunks run R times over each of them. ``tests/parity/test_yardsticks.py`` proves that it computes what the
golden vectors hold.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal

from yardsticks.drqv2 import DrQV2BC, log_density, sample, shift


class CQL(DrQV2BC):
    """Networks, optimizers and one update; ``threshold`` makes the multiplier learn."""

    def __init__(
        self,
        action_dim: int,
        min_q_weight: float = 10.0,
        num_random: int = 10,
        temp: float = 1.0,
        importance: bool = False,
        threshold: float | None = None,
        **sizes: float,
    ) -> None:
        super().__init__(action_dim, **sizes)
        self.weight, self.num_random, self.temp = min_q_weight, num_random, temp
        self.importance, self.threshold = importance, threshold
        self.log_alpha_prime = torch.zeros(1, requires_grad=True)
        lr = self.optimizers["critic"].param_groups[0]["lr"]
        self.optimizers["multiplier"] = torch.optim.Adam([self.log_alpha_prime], lr=lr)

    def update(
        self,
        batch: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
        std: float,
        shifts: Tensor,
        noise: Tensor,
        random_action: Tensor,
        many_noise: Tensor,
    ) -> dict[str, float]:
        """One update; ``random_action`` is (B, R, A), ``many_noise`` (2, B, R, A): current and next actions."""
        obs, action, reward, next_obs, discount = batch
        features = self.encoder(shift(obs, shifts[0]))
        with torch.no_grad():
            next_features = self.encoder(shift(next_obs, shifts[1]))
            next_action = sample(self.actor(next_features), std, noise[0], self.clip)
            target = reward + discount * torch.min(*self.critic_target(next_features, next_action))
            current, log_current = self._policy_actions(features, std, many_noise[0])
            following, log_following = self._policy_actions(next_features, std, many_noise[1])
        densities = (-math.log(2) * action.shape[-1], log_following, log_current)
        metrics = self._step_conservative(
            features, action, target, (random_action, following, current), densities
        )
        metrics |= self._step_online_actor(features.detach(), std, noise[1])
        for target_parameter, parameter in zip(
            self.critic_target.parameters(), self.critic.parameters(), strict=True
        ):
            target_parameter.data.copy_(self.tau * parameter.data + (1 - self.tau) * target_parameter.data)
        return metrics | {"batch_reward": reward.mean().item()}

    def _policy_actions(self, features: Tensor, std: float, noise: Tensor) -> tuple[Tensor, Tensor]:
        """R actions (B, R, A) and their log densities (B, R)."""
        size, count, _ = noise.shape
        repeated = features.unsqueeze(1).repeat(1, count, 1).flatten(0, 1)
        mean = self.actor(repeated)
        action = sample(mean, std, noise.flatten(0, 1), self.clip)
        log_prob = Normal(mean, torch.full_like(mean, std)).log_prob(action).sum(-1)
        return action.view(size, count, -1), log_prob.view(size, count)

    def _values(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B, R) of R actions by both critics."""
        size, count, _ = action.shape
        repeated = features.unsqueeze(1).repeat(1, count, 1).flatten(0, 1)
        q1, q2 = self.critic(repeated, action.flatten(0, 1))
        return q1.view(size, count), q2.view(size, count)

    def _step_conservative(
        self,
        features: Tensor,
        action: Tensor,
        target: Tensor,
        candidates: tuple[Tensor, Tensor, Tensor],
        densities: tuple[float, Tensor, Tensor],
    ) -> dict[str, float]:
        q_data = self.critic(features, action)
        values = [self._values(features, candidate) for candidate in candidates]
        loss, penalties, metrics = torch.zeros(()), [], {}
        for k in (0, 1):
            q = [pair[k] for pair in values]
            if self.importance:
                contrast = torch.cat([v - d for v, d in zip(q, densities, strict=True)], 1)
            else:
                contrast = torch.cat([q[0], q_data[k], q[1], q[2]], 1)
            soft_maximum = torch.logsumexp(contrast / self.temp, dim=1).mean() * self.weight * self.temp
            penalties.append(soft_maximum - q_data[k].mean() * self.weight)
            loss = loss + F.mse_loss(q_data[k], target)
            for name, value in zip(("rand", "next_actions", "curr_actions"), q, strict=True):
                metrics[f"cql_critic_q{k + 1}_{name}"] = value.mean().item()
            metrics[f"critic_q{k + 1}"] = q_data[k].mean().item()
        if self.threshold is not None:
            multiplier = self.log_alpha_prime.exp().clamp(0, 1e6)
            penalties = [multiplier * (penalty - self.threshold) for penalty in penalties]
            self.optimizers["multiplier"].zero_grad()
            (-0.5 * (penalties[0] + penalties[1])).sum().backward(retain_graph=True)
            self.optimizers["multiplier"].step()
        loss = loss + sum(penalty.sum() for penalty in penalties)
        for name in ("encoder", "critic"):
            self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        for name in ("critic", "encoder"):
            self.optimizers[name].step()
        metrics |= {f"cql_critic_q{k}_loss": penalty.item() for k, penalty in enumerate(penalties, start=1)}
        return metrics | {"critic_target_q": target.mean().item(), "critic_loss": loss.item()}

    def _step_online_actor(self, features: Tensor, std: float, noise: Tensor) -> dict[str, float]:
        mean = self.actor(features)
        chosen = sample(mean, std, noise, self.clip)
        loss = -torch.min(*self.critic(features, chosen)).mean()
        self.optimizers["actor"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers["actor"].step()
        log_prob, entropy = log_density(mean, std, chosen)
        return {"actor_loss": loss.item(), "actor_logprob": log_prob, "actor_ent": entropy}
