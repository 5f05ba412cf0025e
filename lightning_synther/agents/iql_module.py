"""Implicit Q-Learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_synther.agents import iql
from lightning_synther.agents.agent import Agent
from lightning_synther.agents.modules import critic_metrics
from lightning_synther.agents.optimization import adam
from lightning_synther.agents.perception import Observation
from lightning_synther.agents.targets import soft_update
from lightning_synther.bounds import check_counts, check_positive, check_shares
from lightning_synther.diffusion.optimization import lr_factor
from lightning_synther.errors import ConfigError
from lightning_synther.networks.gaussian import UnsquashedGaussianActor
from lightning_synther.networks.heads import Value
from lightning_synther.transition import Transition


class IQL(Agent):
    """Implicit Q-Learning (Kostrikov et al. 2021, arXiv 2110.06169), as SynthER trains it.

    Actions are in [-1, 1]. On pixels the encoder learns from the losses of critics and value. It logs
    ``critic_loss``, ``value_loss`` and ``actor_loss``, and the batch means ``critic_q1``, ``critic_q2``, ...,
    ``critic_target_q``, ``advantage`` and ``batch_reward``.

    Args:
        observation: kind of observation in a training batch.
        hidden_dim: width of the hidden layers of all networks.
        lr: learning rate of all optimizers; the actor's falls to 0 as a cosine.
        tau: share of the way to the critics that their targets move in an update.
        num_critics: critics in the ensemble; the smallest target counts.
        iql_tau: the expectile of the values that V estimates.
        beta: inverse temperature; 0 is behaviour cloning.
        iql_deterministic: a deterministic actor, rather than a Gaussian.
        exp_adv_max: bound of a sample's weight in the actor's loss.
        max_steps: updates until the actor's learning rate is 0; None: those of the training.
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
        iql_tau: float = 0.7,
        beta: float = 3.0,
        iql_deterministic: bool = False,
        exp_adv_max: float = 100.0,
        max_steps: int | None = None,
        **base: Any,
    ) -> None:
        super().__init__(observation=observation, hidden_dim=hidden_dim, lr=lr, **base)
        check_counts("", max_steps=max_steps)
        check_positive("", exp_adv_max=exp_adv_max)
        check_shares("", tau=tau, iql_tau=iql_tau)
        self.tau, self.iql_tau, self.beta = tau, iql_tau, beta
        self.exp_adv_max, self.max_steps = exp_adv_max, max_steps
        self.actor = self.make_actor() if iql_deterministic else self._make_gaussian_actor()
        self.critic = self.make_critic(num_critics)
        self.critic_target = self.make_critic(num_critics)
        trunk = self.perception.critic_trunk()
        self.value = Value(trunk, self.make_mlp(trunk.feature_dim, 1))
        self.initialise(critic_target="critic")

    def _make_gaussian_actor(self) -> UnsquashedGaussianActor:
        deterministic = self.make_actor()
        return UnsquashedGaussianActor(deterministic.trunk, deterministic.policy, self.perception.action_dim)

    @classmethod
    def extensible(cls, settings: Mapping[str, Any]) -> bool:
        """Only with a length of its own: the actor's learning rate falls over the whole training."""
        return super().extensible(settings) and settings.get("max_steps") is not None

    @property
    def actor_lr(self) -> float:
        """Learning rate of the actor's next step.

        Raises `ConfigError` where nothing says over how many updates it falls.
        """
        num_updates = self.training_length if self.max_steps is None else self.max_steps
        if num_updates < 1:
            raise ConfigError(
                "the actor's learning rate falls to 0 over a training of unknown length: set model.max_steps, or "
                "trainer.max_steps"
            )
        return self.lr * lr_factor("cosine", num_updates)(self.num_updates)

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Adam for critics, value and encoder, whose losses are disjoint, and one for the actor."""
        modules = (self.critic, self.value, self.encoder)
        return {
            "critic": adam([p for module in modules for p in module.parameters()], self.lr),
            "actor": adam(self.actor.parameters(), self.lr),
        }

    def draw(self, batch: Transition) -> tuple[()]:
        """Nothing: an update has no random numbers."""
        return ()

    def step(self, batch: Transition, draws: tuple[()] = ()) -> dict[str, Tensor]:
        """Value, critics and encoder together, then the actor on the earlier features, and the target."""
        features = self.encoder(batch.observation)
        metrics, advantage = self._step_critic(features, batch)
        metrics |= self._step_actor(features.detach(), batch, advantage)
        soft_update(self.critic_target, self.critic, self.tau)
        return metrics

    def _step_critic(self, features: Tensor, batch: Transition) -> tuple[dict[str, Tensor], Tensor]:
        with torch.no_grad():
            next_value = self.value(self.encoder(batch.next_observation))
            target = torch.addcmul(batch.reward, batch.discount, next_value)
            target_q = self.critic_target(features, batch.action)
        advantage = iql.advantage(target_q, self.value(features))
        value_loss = iql.value_loss(advantage, self.iql_tau)
        q = self.critic(features, batch.action)
        critic_loss = iql.critic_loss(q, target)
        self.minimise(critic_loss + value_loss, "critic")
        metrics = {"critic_loss": critic_loss.detach(), "value_loss": value_loss.detach()}
        metrics["advantage"] = advantage.detach().mean()
        return metrics | critic_metrics(batch, q, target), advantage.detach()

    def _step_actor(self, features: Tensor, batch: Transition, advantage: Tensor) -> dict[str, Tensor]:
        weight = iql.regression_weight(advantage, self.beta, self.exp_adv_max)
        if isinstance(self.actor, UnsquashedGaussianActor):
            cost = iql.gaussian_cost(*self.actor.gaussian(features), batch.action)
        else:
            cost = iql.deterministic_cost(self.actor(features), batch.action)
        loss = iql.actor_loss(weight, cost)
        self.minimise(loss, "actor", lr=self.actor_lr)
        return {"actor_loss": loss.detach()}
