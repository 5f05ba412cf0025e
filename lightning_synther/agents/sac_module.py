"""Soft Actor-Critic, the project's online agent on states."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_synther.agents import sac
from lightning_synther.agents.agent import Agent
from lightning_synther.agents.drqv2 import critic_loss
from lightning_synther.agents.optimization import adam, frozen
from lightning_synther.agents.perception import Observation
from lightning_synther.agents.targets import soft_update
from lightning_synther.networks.gaussian import GaussianActor
from lightning_synther.networks.heads import MLP
from lightning_synther.transition import Transition


class SAC(Agent):
    """Soft Actor-Critic with a learned temperature (Haarnoja et al. 2018, arXiv 1812.05905).

    It departs from the paper in two ways: critics have LayerNorm, and actor and temperature learn only on
    every ``actor_every``-th update, which saves a third of the time and cost no return on cheetah_run.

    Metrics: ``critic_loss``, ``critic_q`` and ``critic_target_q`` (batch means); ``actor_loss``,
    ``actor_ent`` (estimated entropy of the squashed policy), ``temperature``, ``batch_reward``.

    Args:
        observation: kind of observation in a training batch.
        hidden_dim: width of the hidden layers of actor and critics.
        layer_norm: normalise the critics' hidden layers; the actor is a plain perceptron.
        lr: learning rate of all optimizers.
        tau: share of the way to the critic that its target moves in an update.
        num_critics: critics in the ensemble; the smallest value counts.
        actor_every: updates for each one of actor and temperature.
        initial_temperature: weight of the entropy at the start.
        target_entropy: what the temperature steers the entropy to; None for minus the action dimension.
        base: arguments of `Agent`.
    """

    has_critic = True
    actor: GaussianActor

    def __init__(
        self,
        *,
        observation: Observation = "states",
        hidden_dim: int = 256,
        layer_norm: bool = True,
        lr: float = 1e-3,
        tau: float = 0.005,
        num_critics: int = 2,
        actor_every: int = 2,
        initial_temperature: float = 0.1,
        target_entropy: float | None = None,
        **base: Any,
    ) -> None:
        super().__init__(observation=observation, hidden_dim=hidden_dim, layer_norm=layer_norm, lr=lr, **base)
        action_dim = self.perception.action_dim
        self.tau, self.actor_every = tau, actor_every
        self.target_entropy = -float(action_dim) if target_entropy is None else target_entropy
        trunk = self.perception.actor_trunk()
        policy = MLP(int(trunk.feature_dim), 2 * action_dim, hidden_dim, self.hparams["num_layers"])
        self.actor = GaussianActor(trunk, policy)
        self.critic = self.make_critic(num_critics)
        self.critic_target = self.make_critic(num_critics)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial_temperature)))
        self.initialise(critic_target="critic")

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Adam for critic and encoder, and one for actor and temperature."""
        return {
            "critic": adam([*self.critic.parameters(), *self.encoder.parameters()], self.lr),
            "actor": adam([*self.actor.parameters(), self.log_temperature], self.lr),
        }

    def draw(self, batch: Transition) -> Tensor:
        """Standard normal noise (2, B, A): of the next action, and of the actor's action."""
        return torch.randn(2, *batch.action.shape, dtype=batch.action.dtype, device=batch.action.device)

    def step(self, batch: Transition, draws: Tensor) -> dict[str, Tensor]:
        """Critic and encoder, then (not always) actor and temperature, then the target critic."""
        noise_next, noise_actor = draws
        features = self.encoder(batch.observation)
        metrics = self._step_critic(features, batch, noise_next)
        if (self.num_updates + 1) % self.actor_every == 0:
            metrics |= self._step_actor(features.detach(), noise_actor)
        soft_update(self.critic_target, self.critic, self.tau)
        return metrics

    @torch.no_grad()
    def explore(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions (B, A) of the stochastic policy, for observations and standard normal ``noise`` (B, A)."""
        return sac.squash(*self.actor.gaussian(self.encoder(observation)), noise)[0]

    def _step_critic(self, features: Tensor, batch: Transition, noise: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            next_features = self.encoder(batch.next_observation)
            next_action, log_prob = sac.squash(*self.actor.gaussian(next_features), noise)
            next_q = self.critic_target(next_features, next_action)
            temperature = self.log_temperature.exp()
            target = sac.soft_target(batch.reward, batch.discount, next_q, log_prob, temperature)
        q = self.critic(features, batch.action)
        loss = critic_loss(q, target)
        self.minimise(loss, "critic")
        means = {
            "critic_q": q.detach().mean(),
            "critic_target_q": target.mean(),
            "batch_reward": batch.reward.mean(),
        }
        return {"critic_loss": loss.detach()} | means

    def _step_actor(self, features: Tensor, noise: Tensor) -> dict[str, Tensor]:
        action, log_prob = sac.squash(*self.actor.gaussian(features), noise)
        temperature = self.log_temperature.detach().exp()
        with frozen(self.critic):
            q = self.critic(features, action)
        actor_loss = sac.actor_loss(q, log_prob, temperature)
        temperature_loss = sac.temperature_loss(self.log_temperature, log_prob, self.target_entropy)
        self.minimise(actor_loss + temperature_loss, "actor")
        entropy = -log_prob.detach().mean()
        return {"actor_loss": actor_loss.detach(), "actor_ent": entropy, "temperature": temperature}
