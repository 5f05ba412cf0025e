"""What the maximum-entropy agents share: a stochastic policy, an ensemble of critics, and a temperature."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_synther.agents import sac
from lightning_synther.agents.agent import Agent
from lightning_synther.agents.optimization import adam
from lightning_synther.agents.perception import Observation
from lightning_synther.bounds import check_positive, check_shares
from lightning_synther.networks.gaussian import GaussianActor
from lightning_synther.transition import Transition


class MaxEntropyAgent(Agent):
    """An agent whose tanh-Gaussian policy is rewarded for entropy, the more the higher its temperature.

    On pixels the encoder learns from the critics' loss alone. A subclass says how its actor bounds its
    standard deviations, and implements `step`.

    Args:
        observation: kind of observation in a training batch.
        hidden_dim: width of the hidden layers of actor and critics.
        layer_norm: normalise the critics' hidden layers; the actor is a plain perceptron.
        lr: learning rate of critics and encoder.
        actor_lr: learning rate of actor and temperature; None for lr.
        tau: share of the way to the critics that their targets move in an update.
        num_critics: critics in the ensemble.
        initial_temperature: weight of the entropy at the start.
        learn_temperature: steer the entropy to target_entropy, or leave the temperature as it is.
        target_entropy: None for minus the action dimension.
        max_action: bound of the actions.
        base: arguments of `Agent`.
    """

    actor: GaussianActor
    actor_class: ClassVar[type[GaussianActor]] = GaussianActor
    log_std_bounds: ClassVar[tuple[float, float]] = (-5.0, 2.0)
    #: What the published code adds to 1 - tanh^2 in the log density; see `sac.squash`.
    log_prob_epsilon: ClassVar[float] = 0.0

    def __init__(
        self,
        *,
        observation: Observation = "states",
        hidden_dim: int = 256,
        layer_norm: bool = False,
        lr: float = 3e-4,
        actor_lr: float | None = None,
        tau: float = 0.005,
        num_critics: int = 2,
        initial_temperature: float = 1.0,
        learn_temperature: bool = True,
        target_entropy: float | None = None,
        max_action: float = 1.0,
        **base: Any,
    ) -> None:
        super().__init__(observation=observation, hidden_dim=hidden_dim, layer_norm=layer_norm, lr=lr, **base)
        check_positive("", actor_lr=actor_lr, initial_temperature=initial_temperature, max_action=max_action)
        check_shares("", tau=tau)
        action_dim = self.perception.action_dim
        self.tau, self.max_action = tau, max_action
        self.actor_lr = lr if actor_lr is None else actor_lr
        self.target_entropy = -float(action_dim) if target_entropy is None else target_entropy
        trunk = self.perception.actor_trunk()
        policy = self.make_mlp(trunk.feature_dim, 2 * action_dim, layer_norm=False)
        self.actor = self.actor_class(trunk, policy, self.log_std_bounds, max_action)
        self.critic = self.make_critic(num_critics)
        self.critic_target = self.make_critic(num_critics)
        log_temperature = torch.tensor(math.log(initial_temperature))
        self.log_temperature = nn.Parameter(log_temperature, requires_grad=learn_temperature)
        self.initialise(critic_target="critic")

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Adam for critics and encoder, and one for actor and temperature."""
        temperature = [self.log_temperature] if self.log_temperature.requires_grad else []
        return {
            "critic": adam([*self.critic.parameters(), *self.encoder.parameters()], self.lr),
            "actor": adam([*self.actor.parameters(), *temperature], self.actor_lr),
        }

    def draw(self, batch: Transition) -> Any:
        """Standard normal noise (2, B, A): of the next action, and of the actor's action."""
        return torch.randn(2, *batch.action.shape, dtype=batch.action.dtype, device=batch.action.device)

    def sample(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action (B, A) and its log density (B, 1), for the encoder's output and standard normal ``noise``.

        The density is that of the action over max_action.
        """
        action, log_prob = sac.squash(*self.actor.gaussian(features), noise, self.log_prob_epsilon)
        return action * self.max_action, log_prob

    @torch.no_grad()
    def explore(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions (B, A) of the stochastic policy, for observations and standard normal ``noise`` (B, A)."""
        return self.sample(self.encoder(observation), noise)[0]
