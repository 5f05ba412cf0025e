"""Conservative Q-Learning on Soft Actor-Critic, the form that SynthER trains on states."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_synther.agents import cql, drqv2, sac
from lightning_synther.agents.cql_module import (
    Conservatism,
    CQLNoise,
    candidate_metrics,
    critic_values,
    draw_cql_noise,
    numbered,
)
from lightning_synther.agents.max_entropy import MaxEntropyAgent
from lightning_synther.agents.modules import critic_metrics
from lightning_synther.agents.optimization import adam, frozen
from lightning_synther.agents.targets import soft_update
from lightning_synther.bounds import check_counts, check_positive
from lightning_synther.networks.gaussian import AffineGaussianActor
from lightning_synther.transition import Transition


class Gaussian(NamedTuple):
    """The policy before tanh at a batch of observations: mean and log standard deviation, both (B, A)."""

    mean: Tensor
    log_std: Tensor

    def sample_each(self, noise: Tensor, max_action: float) -> cql.Candidates:
        """R actions for each observation, for standard normal ``noise`` (B, R, A)."""
        action, log_density = sac.squash(self.mean[:, None], self.log_std[:, None], noise)
        return cql.Candidates(action * max_action, log_density.squeeze(-1))


class CQLSAC(MaxEntropyAgent):
    """Conservative Q-Learning (Kumar et al. 2020, arXiv 2006.04779) with SAC's policy, as SynthER trains it.

    The parts of an update are all evaluated before any of its steps. It logs ``critic_loss``,
    ``critic_q{k}``, ``critic_q{k}_td_loss``, ``critic_target_q``, ``critic_next_q`` (the bootstrapped value)
    and ``batch_reward``; ``actor_loss``, ``actor_logprob``, ``temperature`` and ``temperature_loss``; for
    each critic k the means ``cql_critic_q{k}_rand``, ``cql_critic_q{k}_next_actions`` and
    ``cql_critic_q{k}_curr_actions``, ``cql_critic_q{k}_std`` (deviation over candidates and the data's
    action), ``cql_critic_q{k}_gap`` and ``cql_critic_q{k}_loss`` (its penalty); and, with a Lagrange
    multiplier, ``cql_multiplier`` and ``cql_multiplier_loss``.

    Args:
        num_layers: hidden layers of actor and critics.
        actor_lr: learning rate of actor and temperature.
        alpha_multiplier: factor of the temperature.
        backup_entropy: count the entropy in target values.
        bc_steps: updates at the start in which the actor clones the data's actions.
        target_update_period: updates for each one of the target critics.
        cql_n_actions: R, actions drawn from each of three distributions.
        cql_importance_sample: correct the soft maximum for the density of the actions.
        cql_lagrange: learn a multiplier that holds the gap at cql_target_action_gap.
        cql_target_action_gap: that gap.
        cql_temp: temperature of the soft maximum.
        cql_min_q_weight: weight of the gap.
        cql_max_target_backup: bootstrap from the best of R actions rather than from one.
        cql_clip_diff_min: lower bound of each sample's gap.
        cql_clip_diff_max: upper bound.
        base: arguments of `MaxEntropyAgent` and `Agent`.
    """

    actor_class = AffineGaussianActor
    log_std_bounds = (-20.0, 2.0)

    def __init__(
        self,
        *,
        num_layers: int = 3,
        actor_lr: float = 3e-5,
        alpha_multiplier: float = 1.0,
        backup_entropy: bool = False,
        bc_steps: int = 0,
        target_update_period: int = 1,
        cql_n_actions: int = 10,
        cql_importance_sample: bool = True,
        cql_lagrange: bool = False,
        cql_target_action_gap: float = -1.0,
        cql_temp: float = 1.0,
        cql_min_q_weight: float = 10.0,
        cql_max_target_backup: bool = False,
        cql_clip_diff_min: float = -math.inf,
        cql_clip_diff_max: float = math.inf,
        **base: Any,
    ) -> None:
        super().__init__(num_layers=num_layers, actor_lr=actor_lr, **base)
        check_counts("", target_update_period=target_update_period, cql_n_actions=cql_n_actions)
        check_counts("", least=0, bc_steps=bc_steps)
        check_positive("", cql_temp=cql_temp)
        self.alpha_multiplier, self.backup_entropy, self.bc_steps = alpha_multiplier, backup_entropy, bc_steps
        self.target_update_period, self.num_random = target_update_period, cql_n_actions
        self.max_target_backup = cql_max_target_backup
        self.conservatism = Conservatism(
            cql_importance_sample,
            cql_temp,
            cql_min_q_weight,
            threshold=cql_min_q_weight * cql_target_action_gap if cql_lagrange else None,
            clip=(cql_clip_diff_min, cql_clip_diff_max),
            log_multiplier=1.0,
        )

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Adam for critics, encoder and multiplier, and one for actor and temperature."""
        online = (self.critic, self.encoder, self.conservatism)
        critic = adam([p for module in online for p in module.parameters()], self.lr)
        return super().make_optimizers() | {"critic": critic}

    def draw(self, batch: Transition) -> tuple[CQLNoise, Tensor]:
        """Random numbers of the critics' step, and standard normal noise (B, A) of the actor's action."""
        noise = draw_cql_noise(batch.action, self.num_random)
        num_targets = self.num_random if self.max_target_backup else 1
        target = torch.randn_like(batch.action[:, None].expand(-1, num_targets, -1))
        return noise._replace(target=target), torch.randn_like(batch.action)

    def step(self, batch: Transition, draws: tuple[CQLNoise, Tensor]) -> dict[str, Tensor]:
        """Actor and temperature, critics and encoder, target critics."""
        noise, noise_actor = draws
        features = self.encoder(batch.observation)
        policy = Gaussian(*self.actor.gaussian(features.detach()))
        with torch.no_grad():
            following = self.encoder(batch.next_observation)
            next_policy = Gaussian(*self.actor.gaussian(following))
            next_value = self._next_value(following, next_policy, noise.target)
            candidates = cql.candidates(
                noise.random_action,
                next_policy.sample_each(noise.following, self.max_action),
                policy.sample_each(noise.current, self.max_action),
            )
        metrics = self._step_actor(features.detach(), policy, batch.action, noise_actor)
        metrics |= self._step_critic(features, batch, next_value, candidates)
        if (self.num_updates + 1) % self.target_update_period == 0:
            soft_update(self.critic_target, self.critic, self.tau)
        return metrics

    def _temperature(self) -> Tensor:
        return self.log_temperature.detach().exp() * self.alpha_multiplier

    def _next_value(self, features: Tensor, policy: Gaussian, noise: Tensor) -> Tensor:
        """Value (B, 1) of the next observation: that of the best of the M actions of ``noise`` (B, M, A)."""
        action, log_density = policy.sample_each(noise, self.max_action)
        value, best = self.critic_target.of_each(features, action).amin(0).max(-1, keepdim=True)
        return value - self._temperature() * log_density.gather(-1, best) if self.backup_entropy else value

    def _step_actor(
        self, features: Tensor, policy: Gaussian, data_action: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        action, log_prob = sac.squash(*policy, noise)
        temperature = self._temperature()
        if self.num_updates < self.bc_steps:
            worth = sac.log_density(*policy, data_action)[None]
        else:
            with frozen(self.critic):
                worth = self.critic(features, action * self.max_action)
        loss = sac.actor_loss(worth, log_prob, temperature)
        metrics = {"actor_loss": loss.detach(), "actor_logprob": log_prob.detach().mean()}
        if self.log_temperature.requires_grad:
            temperature_loss = sac.log_temperature_loss(self.log_temperature, log_prob, self.target_entropy)
            metrics["temperature_loss"] = temperature_loss.detach()
            loss = loss + temperature_loss
        self.minimise(loss, "actor")
        return metrics | {"temperature": temperature}

    def _step_critic(
        self, features: Tensor, batch: Transition, next_value: Tensor, candidates: cql.Candidates
    ) -> dict[str, Tensor]:
        target = torch.addcmul(batch.reward, batch.discount, next_value)
        q_data, q = critic_values(self.critic, features, batch.action, candidates)
        gap, penalty, multiplier_loss = self.conservatism(q_data, q, candidates.log_density)
        loss = drqv2.critic_loss(q_data, target) + penalty.sum()
        metrics = {"critic_loss": loss.detach(), "critic_next_q": next_value.mean()}
        if self.conservatism.log_multiplier is not None:
            metrics["cql_multiplier"] = cql.multiplier(self.conservatism.log_multiplier).detach()
            metrics["cql_multiplier_loss"] = multiplier_loss.detach()
        self.minimise(loss + multiplier_loss, "critic")
        metrics |= critic_metrics(batch, q_data, target) | candidate_metrics(q, "cql_critic_q{}_{}")
        metrics |= numbered("cql_critic_q{}_gap", gap) | numbered("cql_critic_q{}_loss", penalty)
        deviation = torch.cat([q_data, q], dim=-1).detach().std(-1).mean(-1)
        metrics |= numbered("cql_critic_q{}_std", deviation)
        return metrics | numbered("critic_q{}_td_loss", (q_data - target).square().mean((1, 2)))
