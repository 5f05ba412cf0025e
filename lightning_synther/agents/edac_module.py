"""EDAC: Soft Actor-Critic on a large, diversified ensemble of critics, for offline data."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_synther.agents import edac, sac
from lightning_synther.agents.drqv2 import critic_loss
from lightning_synther.agents.max_entropy import MaxEntropyAgent
from lightning_synther.agents.optimization import adam, frozen
from lightning_synther.agents.targets import soft_update
from lightning_synther.bounds import check_positive
from lightning_synther.errors import ConfigError
from lightning_synther.networks.gaussian import ClampedGaussianActor
from lightning_synther.transition import Transition


class EDACNoise(NamedTuple):
    """Random numbers (B, A) of one update: standard normals, but for uniform ``random_action``."""

    temperature: Tensor
    actor: Tensor
    target: Tensor
    random_action: Tensor  # in [-1, 1)


class EDAC(MaxEntropyAgent):
    """Ensemble-Diversified Actor-Critic (An et al. 2021, arXiv 2110.01548), as SynthER trains it.

    With ``eta=0`` it is SAC-N of the same paper. It logs ``critic_loss`` (diversity term included),
    ``critic_diversity`` (`diversity_loss`), ``critic_target_q`` and ``batch_reward`` (batch means);
    ``actor_loss``, ``actor_ent`` and ``q_policy_std`` (deviation over critics at the policy's actions);
    ``temperature`` and ``temperature_loss``; and, with updates that are logged, ``q_random_std`` (deviation
    at uniform actions).

    Args:
        num_layers: hidden layers of actor and critics.
        num_critics: critics in the ensemble; the smallest value counts.
        eta: weight of the diversity term.
        temperature_lr: learning rate of the temperature; None for lr.
        base: arguments of `MaxEntropyAgent` and `Agent`.
    """

    actor_class = ClampedGaussianActor
    log_prob_epsilon = 1e-6

    def __init__(
        self,
        *,
        num_layers: int = 3,
        num_critics: int = 10,
        eta: float = 1.0,
        temperature_lr: float | None = None,
        **base: Any,
    ) -> None:
        if num_critics < 2:
            raise ConfigError(f"num_critics is {num_critics}: the diversity of an ensemble needs at least 2")
        super().__init__(num_layers=num_layers, num_critics=num_critics, **base)
        check_positive("", temperature_lr=temperature_lr)
        self.eta = eta
        self.critic.q.twice_differentiable = True  # the diversity is one of gradients
        self.temperature_lr = self.lr if temperature_lr is None else temperature_lr

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Adam for critics and encoder, one for the actor, and one for the temperature."""
        return {
            "critic": adam([*self.critic.parameters(), *self.encoder.parameters()], self.lr),
            "actor": adam(self.actor.parameters(), self.actor_lr),
            "temperature": adam([self.log_temperature], self.temperature_lr),
        }

    def draw(self, batch: Transition) -> EDACNoise:
        """Random numbers of one update."""
        shape = (3, *batch.action.shape)
        temperature, actor, target = torch.randn(shape, dtype=batch.action.dtype, device=batch.action.device)
        return EDACNoise(temperature, actor, target, 2 * torch.rand_like(batch.action) - 1)

    def step(self, batch: Transition, draws: EDACNoise) -> dict[str, Tensor]:
        """Temperature, actor, critics and encoder, target: the paper's order, each with noise of its own."""
        features = self.encoder(batch.observation)
        metrics = self._step_temperature(features.detach(), draws.temperature)
        metrics |= self._step_actor(features.detach(), draws.actor)
        metrics |= self._step_critic(features, batch, draws.target)
        soft_update(self.critic_target, self.critic, self.tau)
        if (self.num_updates + 1) % self.log_every_n_updates == 0:
            with torch.no_grad():
                q = self.critic(features, draws.random_action * self.max_action)
            metrics["q_random_std"] = q.std(0).mean()
        return metrics

    def _step_temperature(self, features: Tensor, noise: Tensor) -> dict[str, Tensor]:
        if not self.log_temperature.requires_grad:
            return {}
        with torch.no_grad():
            _, log_prob = self.sample(features, noise)
        loss = sac.log_temperature_loss(self.log_temperature, log_prob, self.target_entropy)
        self.minimise(loss, "temperature")
        return {"temperature_loss": loss.detach()}

    def _step_actor(self, features: Tensor, noise: Tensor) -> dict[str, Tensor]:
        action, log_prob = self.sample(features, noise)
        temperature = self.log_temperature.detach().exp()
        with frozen(self.critic):
            q = self.critic(features, action)
        loss = sac.actor_loss(q, log_prob, temperature)
        self.minimise(loss, "actor")
        deviation, entropy = q.detach().std(0).mean(), -log_prob.detach().mean()
        metrics = {"actor_loss": loss.detach(), "actor_ent": entropy, "q_policy_std": deviation}
        return metrics | {"temperature": temperature}

    def _step_critic(self, features: Tensor, batch: Transition, noise: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            following = self.encoder(batch.next_observation)
            next_action, log_prob = self.sample(following, noise)
            next_q = self.critic_target(following, next_action)
            temperature = self.log_temperature.exp()
            target = sac.soft_target(batch.reward, batch.discount, next_q, log_prob, temperature)
        action = batch.action.detach().expand(len(next_q), -1, -1).requires_grad_()
        q = self.critic(features, action)
        diversity = edac.diversity_loss(edac.action_gradients(q, action))
        loss = critic_loss(q, target) + self.eta * diversity
        self.minimise(loss, "critic")
        means = {"critic_target_q": target.mean(), "batch_reward": batch.reward.mean()}
        return means | {"critic_loss": loss.detach(), "critic_diversity": diversity.detach()}
