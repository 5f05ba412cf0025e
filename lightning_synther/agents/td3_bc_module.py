"""TD3+BC."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_synther.agents import drqv2
from lightning_synther.agents.agent import Agent
from lightning_synther.agents.bc import bc_loss
from lightning_synther.agents.modules import critic_metrics
from lightning_synther.agents.optimization import adam, average_over_ranks, frozen
from lightning_synther.agents.perception import Observation
from lightning_synther.agents.targets import soft_update, td_target
from lightning_synther.agents.td3_bc import smoothed_action
from lightning_synther.bounds import check_counts, check_positive, check_shares
from lightning_synther.transition import Transition


class TD3BC(Agent):
    """TD3 with a behaviour-cloning term (Fujimoto and Gu 2021, arXiv 2106.06860), as SynthER trains it.

    On pixels the encoder learns from the critics' loss alone, as in DrQ-v2. It logs ``critic_loss``, the
    batch means ``critic_q1``, ``critic_q2``, ..., ``critic_target_q`` and ``batch_reward``; ``actor_loss``
    (weighted value term and BC term) and ``actor_bc_loss``.

    Args:
        observation: kind of observation in a training batch.
        hidden_dim: width of the hidden layers of actor and critics.
        lr: learning rate of all optimizers.
        tau: share of the way to their originals that the targets move.
        num_critics: critics in the ensemble; the actor follows the first.
        policy_noise: standard deviation of the noise on target actions.
        noise_clip: bound of that noise.
        policy_freq: updates for each one of actor and targets.
        alpha: the value term is weighted by alpha / mean |Q|.
        max_action: bound of the actions.
        base: arguments of `Agent`.
    """

    def __init__(
        self,
        *,
        observation: Observation = "states",
        hidden_dim: int = 256,
        lr: float = 3e-4,
        tau: float = 0.005,
        num_critics: int = 2,
        policy_noise: float = 0.2,
        noise_clip: float = 0.5,
        policy_freq: int = 2,
        alpha: float = 2.5,
        max_action: float = 1.0,
        **base: Any,
    ) -> None:
        super().__init__(observation=observation, hidden_dim=hidden_dim, lr=lr, **base)
        check_counts("", policy_freq=policy_freq)
        check_positive("", max_action=max_action)
        check_shares("", tau=tau)
        self.tau, self.policy_freq, self.alpha = tau, policy_freq, alpha
        self.policy_noise, self.noise_clip, self.max_action = policy_noise, noise_clip, max_action
        self.actor = self.make_actor(max_action)
        self.actor_target = self.make_actor(max_action)
        self.critic = self.make_critic(num_critics)
        self.critic_target = self.make_critic(num_critics)
        self.initialise(actor_target="actor", critic_target="critic")

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Adam for the critics and the encoder, which step together, and one for the actor."""
        return {
            "critic": adam([*self.critic.parameters(), *self.encoder.parameters()], self.lr),
            "actor": adam(self.actor.parameters(), self.lr),
        }

    def draw(self, batch: Transition) -> Tensor:
        """Standard normal noise (B, A) of the target action."""
        return torch.randn_like(batch.action)

    def step(self, batch: Transition, draws: Tensor) -> dict[str, Tensor]:
        """Critics and encoder, then (not always) the actor on the earlier features, and the targets."""
        features = self.encoder(batch.observation)
        metrics = self._step_critic(features, batch, draws)
        if (self.num_updates + 1) % self.policy_freq == 0:
            metrics |= self._step_actor(features.detach(), batch)
            soft_update(self.critic_target, self.critic, self.tau)
            soft_update(self.actor_target, self.actor, self.tau)
        return metrics

    def _step_critic(self, features: Tensor, batch: Transition, noise: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            following = self.encoder(batch.next_observation)
            bounds = self.policy_noise, self.noise_clip, self.max_action
            next_action = smoothed_action(self.actor_target(following), noise, *bounds)
            target = td_target(batch.reward, batch.discount, self.critic_target(following, next_action))
        q = self.critic(features, batch.action)
        loss = drqv2.critic_loss(q, target)
        self.minimise(loss, "critic")
        return {"critic_loss": loss.detach()} | critic_metrics(batch, q, target)

    def _step_actor(self, features: Tensor, batch: Transition) -> dict[str, Tensor]:
        action = self.actor(features)
        with frozen(self.critic):
            q = self.critic(features, action)[:1]
        weight = drqv2.value_weight(self.alpha, average_over_ranks(drqv2.mean_magnitude(q)))
        regression = bc_loss(action, batch.action)
        loss = weight * drqv2.actor_loss(q) + regression
        self.minimise(loss, "actor")
        return {"actor_loss": loss.detach(), "actor_bc_loss": regression.detach()}
