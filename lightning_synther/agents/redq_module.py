"""REDQ: Soft Actor-Critic with many updates for each environment step, on an ensemble with random targets."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_synther.agents import redq, sac
from lightning_synther.agents.drqv2 import critic_loss
from lightning_synther.agents.max_entropy import MaxEntropyAgent
from lightning_synther.agents.optimization import frozen
from lightning_synther.agents.targets import soft_update
from lightning_synther.bounds import check_counts
from lightning_synther.errors import ConfigError
from lightning_synther.networks.gaussian import ClampedGaussianActor
from lightning_synther.transition import Transition


class REDQNoise(NamedTuple):
    """Random numbers of one update: standard normals (B, A), and the target critics that count."""

    target: Tensor
    actor: Tensor
    members: Tensor  # (num_min,) distinct integers


class REDQ(MaxEntropyAgent):
    """Randomized Ensembled Double Q-learning (Chen et al. 2021, arXiv 2101.05982), SynthER's online agent.

    Every ``utd_ratio`` updates make one round, those of one environment step; the actor learns on every
    ``policy_update_delay``-th update of a round, and on its last. It logs ``critic_loss`` (summed
    over critics), ``critic_q``, ``critic_target_q`` and ``batch_reward`` (batch means); ``actor_loss``,
    ``actor_ent``, ``temperature`` and ``temperature_loss``.

    Args:
        num_critics: critics in the ensemble.
        num_min: of these, the random ones whose smallest value is the target.
        q_target_mode: "min" as said, or "ave", the mean of all.
        utd_ratio: updates in a round.
        policy_update_delay: updates of critics for each one of actor and temperature.
        alpha: the temperature; with learn_temperature the learned one, which starts from
            initial_temperature, replaces it at the actor's first update, as in the published code.
        base: arguments of `MaxEntropyAgent` and `Agent`.
    """

    actor_class = ClampedGaussianActor
    log_std_bounds = (-20.0, 2.0)
    log_prob_epsilon = 1e-6
    temperature: Tensor

    def __init__(
        self,
        *,
        num_critics: int = 10,
        num_min: int = 2,
        q_target_mode: redq.TargetMode = "min",
        utd_ratio: int = 20,
        policy_update_delay: int = 20,
        alpha: float = 0.2,
        **base: Any,
    ) -> None:
        if not 1 <= num_min <= num_critics:
            raise ConfigError(f"num_min is {num_min}: it must be in 1 … num_critics ({num_critics})")
        if q_target_mode not in ("min", "ave"):
            raise ConfigError(f"q_target_mode is {q_target_mode!r}: give 'min' or 'ave'")
        check_counts("", utd_ratio=utd_ratio, policy_update_delay=policy_update_delay)
        super().__init__(num_critics=num_critics, **base)
        self.num_critics, self.num_min, self.q_target_mode = num_critics, num_min, q_target_mode
        self.utd_ratio, self.policy_update_delay = utd_ratio, policy_update_delay
        self.register_buffer("temperature", torch.tensor(alpha))

    def draw(self, batch: Transition) -> REDQNoise:
        """Random numbers of one update."""
        members = torch.randperm(self.num_critics, device=batch.action.device)[: self.num_min]
        return REDQNoise(torch.randn_like(batch.action), torch.randn_like(batch.action), members)

    @property
    def actor_is_due(self) -> bool:
        """Whether the next update is one of the actor too."""
        done = self.num_updates % self.utd_ratio + 1
        return done % self.policy_update_delay == 0 or done == self.utd_ratio

    def step(self, batch: Transition, draws: REDQNoise) -> dict[str, Tensor]:
        """Target values, actor and temperature if due, critics and encoder, target critics.

        The actor sees the critics from before their step, the target the actor from before its own.
        """
        features = self.encoder(batch.observation)
        target = self._target(batch, draws)
        metrics = self._step_actor(features.detach(), draws.actor) if self.actor_is_due else {}
        q = self.critic(features, batch.action)
        loss = critic_loss(q, target)
        self.minimise(loss, "critic")
        soft_update(self.critic_target, self.critic, self.tau)
        means = {"critic_q": q.detach().mean(), "critic_target_q": target.mean()}
        return metrics | means | {"critic_loss": loss.detach(), "batch_reward": batch.reward.mean()}

    @torch.no_grad()
    def _target(self, batch: Transition, draws: REDQNoise) -> Tensor:
        features = self.encoder(batch.next_observation)
        action, log_prob = self.sample(features, draws.target)
        values = redq.target_values(self.critic_target(features, action), draws.members, self.q_target_mode)
        return sac.soft_target(batch.reward, batch.discount, values, log_prob, self.temperature)

    def _step_actor(self, features: Tensor, noise: Tensor) -> dict[str, Tensor]:
        action, log_prob = self.sample(features, noise)
        with frozen(self.critic):
            q = self.critic(features, action)
        loss = redq.actor_loss(q, log_prob, self.temperature)
        metrics = {"actor_loss": loss.detach(), "actor_ent": -log_prob.detach().mean()}
        if self.log_temperature.requires_grad:
            temperature_loss = sac.log_temperature_loss(self.log_temperature, log_prob, self.target_entropy)
            metrics["temperature_loss"] = temperature_loss.detach()
            loss = loss + temperature_loss
        self.minimise(loss, "actor")
        if self.log_temperature.requires_grad:
            self.temperature.copy_(self.log_temperature.detach().exp())
        return metrics | {"temperature": self.temperature.clone()}
