"""Agents that train on pixels, latents or states: behaviour cloning, and DrQ-v2 with or without
regularisation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_synther.agents import drqv2
from lightning_synther.agents.agent import Agent
from lightning_synther.agents.bc import bc_loss
from lightning_synther.agents.optimization import adam, average_over_ranks, frozen
from lightning_synther.agents.schedules import parse_schedule
from lightning_synther.agents.targets import soft_update, td_target
from lightning_synther.bounds import check_counts, check_shares
from lightning_synther.networks.distributions import TruncatedNormal
from lightning_synther.transition import Transition


class NoisyAgent(Agent):
    """An agent whose deterministic policy is surrounded by scheduled, truncated noise, as in DrQ-v2.

    Args:
        stddev_schedule: standard deviation of the noise: a number, ``linear(initial,final,duration)`` or
            ``step_linear(initial,final1,duration1,final2,duration2)``.
        stddev_clip: bound of the noise.
        schedule_steps_per_update: steps of the schedule in one update. The published code counts attempted
            updates and makes every second one, so its schedules take 2.
        base: arguments of `Agent`.
    """

    def __init__(
        self,
        *,
        stddev_schedule: str = "linear(1.0,0.1,250000)",
        stddev_clip: float = 0.3,
        schedule_steps_per_update: int = 2,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        check_counts("", schedule_steps_per_update=schedule_steps_per_update)
        self.stddev_clip = stddev_clip
        self.stddev_schedule = parse_schedule(stddev_schedule)
        self.schedule_steps_per_update = schedule_steps_per_update

    def action_distribution(self, features: Tensor) -> TruncatedNormal:
        """Distribution over actions, for what the encoder made of the observations."""
        std = self.stddev_schedule(self.num_updates * self.schedule_steps_per_update)
        return TruncatedNormal(self.actor(features), std)

    @torch.no_grad()
    def explore(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions (B, A) with noise, for observations and standard normal ``noise`` (B, A).

        As DrQ-v2 explores: the schedule's deviation, and no ``stddev_clip``, which is for the losses.
        """
        return self.action_distribution(self.encoder(observation)).sample(noise)


def sampling_metrics(distribution: TruncatedNormal, action: Tensor) -> dict[str, Tensor]:
    """Batch means of the summed log density of ``action`` and of the summed entropy (of the plain Normal)."""
    return {
        "actor_logprob": distribution.log_prob(action).detach().sum(-1).mean(),
        "actor_ent": distribution.entropy().detach().sum(-1).mean(),
    }


def critic_metrics(batch: Transition, q: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Batch means of the reward, the target (B, 1), and each critic's values ``q`` (E, B, 1)."""
    means = {f"critic_q{i}": value for i, value in enumerate(q.detach().mean((1, 2)), start=1)}
    return means | {"batch_reward": batch.reward.mean(), "critic_target_q": target.mean()}


class BC(NoisyAgent):
    """Behaviour cloning, as regression of noisy actions on the data's.

    From V-D4RL (Lu et al. 2023). It logs ``actor_bc_loss`` (`bc_loss`), and the batch means
    ``actor_logprob``, ``actor_ent`` and ``batch_reward``.

    Args:
        base: arguments of `NoisyAgent` and `Agent`.
    """

    def __init__(self, **base: Any) -> None:
        super().__init__(**base)
        self.actor = self.make_actor()
        self.initialise()

    def make_optimizers(self) -> dict[str, Optimizer]:
        """One Adam for the actor and the encoder."""
        return {"actor": adam([*self.actor.parameters(), *self.encoder.parameters()], self.lr)}

    def draw(self, batch: Transition) -> Tensor:
        """Standard normal noise (B, A) of the action."""
        return torch.randn_like(batch.action)

    def step(self, batch: Transition, draws: Tensor) -> dict[str, Tensor]:
        """Train actor and encoder together."""
        distribution = self.action_distribution(self.encoder(batch.observation))
        action = distribution.sample(draws, self.stddev_clip)
        loss = bc_loss(action, batch.action)
        self.minimise(loss, "actor")
        metrics = {"actor_bc_loss": loss.detach(), "batch_reward": batch.reward.mean()}
        return metrics | sampling_metrics(distribution, action)


class DrQV2(NoisyAgent):
    """DrQ-v2, and with ``bc_weight`` its offline form DrQ-v2+BC, with TD3+BC's regularisation.

    From Yarats et al. 2021 and from V-D4RL (Lu et al. 2023). It logs ``critic_loss``, the batch means
    ``critic_q1``, ``critic_q2``, ... of the critics before their step and ``critic_target_q`` of the target,
    ``actor_loss`` (negative mean of min_e Q, without weight or BC term), ``actor_bc_loss`` (`bc_loss`), and
    the batch means ``actor_logprob``, ``actor_ent`` and ``batch_reward``.

    Args:
        tau: share of the way to the critic that its target moves in an update.
        num_critics: critics in the ensemble.
        bc_weight: alpha of TD3+BC; the value term is weighted by alpha / mean |Q|. None: DrQ-v2 as published
            for online training, with the value term alone.
        use_bc: with bc_weight, add the BC term; False gives V-D4RL's offline DrQ-v2 without it.
        base: arguments of `NoisyAgent` and `Agent`.
    """

    def __init__(
        self,
        *,
        tau: float = 0.01,
        num_critics: int = 2,
        bc_weight: float | None = None,
        use_bc: bool = True,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        check_shares("", tau=tau)
        self.tau, self.bc_weight, self.use_bc = tau, bc_weight, use_bc
        self.actor = self.make_actor()
        self.critic = self.make_critic(num_critics)
        self.critic_target = self.make_critic(num_critics)
        self.initialise(critic_target="critic")

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Adam for the critic and the encoder, which step together, and one for the actor."""
        return {
            "critic": adam([*self.critic.parameters(), *self.encoder.parameters()], self.lr),
            "actor": adam(self.actor.parameters(), self.lr),
        }

    def draw(self, batch: Transition) -> Any:
        """Standard normal noise (2, B, A): of the next action, and of the actor's action."""
        return torch.randn(2, *batch.action.shape, dtype=batch.action.dtype, device=batch.action.device)

    def step(self, batch: Transition, draws: Any) -> dict[str, Tensor]:
        """Critic and encoder, then the actor on the features from before that step, then the target."""
        noise_critic, noise_actor = draws
        features = self.encoder(batch.observation)
        metrics = self._step_critic(features, batch, noise_critic)
        metrics |= self._step_actor(features.detach(), batch, noise_actor)
        soft_update(self.critic_target, self.critic, self.tau)
        return metrics

    @torch.no_grad()
    def _target(self, batch: Transition, noise: Tensor) -> tuple[Tensor, TruncatedNormal]:
        """Target value (B, 1), for ``noise`` of the next action, and the policy at the next observation."""
        features = self.encoder(batch.next_observation)
        policy = self.action_distribution(features)
        next_q = self.critic_target(features, policy.sample(noise, self.stddev_clip))
        return td_target(batch.reward, batch.discount, next_q), policy

    def _step_critic(self, features: Tensor, batch: Transition, noise: Any) -> dict[str, Tensor]:
        target, _ = self._target(batch, noise)
        q = self.critic(features, batch.action)
        loss = drqv2.critic_loss(q, target)
        self.minimise(loss, "critic")
        return {"critic_loss": loss.detach()} | critic_metrics(batch, q, target)

    def _step_actor(self, features: Tensor, batch: Transition, noise: Tensor) -> dict[str, Tensor]:
        distribution = self.action_distribution(features)
        action = distribution.sample(noise, self.stddev_clip)
        with frozen(self.critic):
            q = self.critic(features, action)
        value_loss = drqv2.actor_loss(q)
        metrics = {"actor_loss": value_loss.detach()} | sampling_metrics(distribution, action)
        loss = value_loss
        if self.bc_weight is not None:
            magnitude = average_over_ranks(drqv2.mean_magnitude(q))
            regression = bc_loss(action, batch.action)
            loss = drqv2.value_weight(self.bc_weight, magnitude) * value_loss
            loss = loss + regression if self.use_bc else loss
            metrics["actor_bc_loss"] = regression.detach()
        self.minimise(loss, "actor")
        return metrics
