"""Conservative Q-Learning on DrQ-v2, and the conservative term that it shares with the form on SAC."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_synther.agents import cql, drqv2
from lightning_synther.agents.modules import DrQV2, critic_metrics
from lightning_synther.agents.optimization import adam
from lightning_synther.bounds import check_counts, check_positive
from lightning_synther.networks.distributions import TruncatedNormal
from lightning_synther.networks.heads import Critic
from lightning_synther.transition import Transition


class Conservatism(nn.Module):
    """The conservative term of a critic's loss, with or without a Lagrange multiplier.

    Args:
        importance_sampling: correct for the density of the actions.
        temperature: of the soft maximum over actions.
        weight: of the gap.
        threshold: what the multiplier steers the weighted gap to; None: no multiplier.
        clip: bounds of each sample's gap.
        log_multiplier: initial value.
    """

    log_multiplier: nn.Parameter | None

    def __init__(
        self,
        importance_sampling: bool,
        temperature: float,
        weight: float,
        threshold: float | None,
        clip: tuple[float, float] = (-math.inf, math.inf),
        log_multiplier: float = 0.0,
    ) -> None:
        super().__init__()
        self.importance_sampling, self.temperature, self.weight = importance_sampling, temperature, weight
        self.threshold, self.clip = threshold, clip
        initial = nn.Parameter(torch.tensor(log_multiplier)) if threshold is not None else None
        self.register_parameter("log_multiplier", initial)

    def forward(self, q_data: Tensor, q: Tensor, log_density: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gaps and penalties (E,) for the critics, and the multiplier's loss.

        ``q_data`` (E, B, 1) and ``q`` (E, B, 3R) are the values of the data's and the candidates' actions.
        """
        contrasted = cql.contrast(q_data, q, log_density, self.importance_sampling)
        gap = cql.gap(contrasted, q_data, self.temperature, self.clip)
        penalty = gap * self.weight
        if self.log_multiplier is None or self.threshold is None:
            return gap, penalty, penalty.new_zeros(())
        multiplier = cql.multiplier(self.log_multiplier).detach()
        dual = cql.multiplier_loss(self.log_multiplier, penalty, self.threshold)
        return gap, multiplier * (penalty - self.threshold), dual


def critic_values(
    critic: Critic, features: Tensor, action: Tensor, candidates: cql.Candidates
) -> tuple[Tensor, Tensor]:
    """Values (E, B, 1) of the data's ``action`` and (E, B, 3R) of the candidates, in one forward pass."""
    q = critic.of_each(features, torch.cat([action[:, None], candidates.action], dim=1))
    return q[..., :1], q[..., 1:]


class CQLNoise(NamedTuple):
    """Random numbers of a critic's step: standard normals, but for uniform ``random_action``."""

    target: Tensor  # (B, A); of M actions (B, M, A) where the target takes the best of several
    random_action: Tensor  # (B, R, A) in [-1, 1)
    following: Tensor  # (B, R, A)
    current: Tensor  # (B, R, A)


def draw_cql_noise(action: Tensor, num_random: int) -> CQLNoise:
    """Random numbers for a batch of actions (B, A)."""
    shape = (len(action), num_random, action.shape[-1])
    following, current = torch.randn(2, *shape, dtype=action.dtype, device=action.device)
    random_action = 2 * torch.rand(shape, dtype=action.dtype, device=action.device) - 1
    return CQLNoise(torch.randn_like(action), random_action, following, current)


class CQL(DrQV2):
    """Conservative Q-Learning with DrQ-v2's encoder, policy and updates, as in V-D4RL (Lu et al. 2023).

    The critics' loss has the conservative term added (`agents.cql`); the actor's is DrQ-v2's. Besides the
    metrics of `DrQV2` it logs for each critic k the means ``cql_critic_q{k}_rand``,
    ``cql_critic_q{k}_next_actions`` and ``cql_critic_q{k}_curr_actions``, and ``cql_critic_q{k}_loss``, its
    conservative penalty.

    Args:
        cql_importance_sample: correct the soft maximum for the density of the actions.
        temp: temperature of the soft maximum.
        min_q_weight: weight of the gap.
        num_random: R, actions drawn from each of three distributions.
        with_lagrange: learn a multiplier that holds the weighted gap at lagrange_thresh.
        lagrange_thresh: that threshold.
        base: arguments of `DrQV2`, `NoisyAgent` and `Agent`.
    """

    def __init__(
        self,
        *,
        cql_importance_sample: bool = False,
        temp: float = 1.0,
        min_q_weight: float = 1.0,
        num_random: int = 10,
        with_lagrange: bool = False,
        lagrange_thresh: float = 0.0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        check_counts("", num_random=num_random)
        check_positive("", temp=temp)
        self.num_random = num_random
        threshold = lagrange_thresh if with_lagrange else None
        self.conservatism = Conservatism(cql_importance_sample, temp, min_q_weight, threshold)

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Adam for critic, encoder and multiplier, which step together, and one for the actor."""
        online = (self.critic, self.encoder, self.conservatism)
        return {
            "critic": adam([p for module in online for p in module.parameters()], self.lr),
            "actor": adam(self.actor.parameters(), self.lr),
        }

    def draw(self, batch: Transition) -> tuple[CQLNoise, Tensor]:
        """Random numbers of the critic's step, and standard normal noise (B, A) of the actor's action."""
        return draw_cql_noise(batch.action, self.num_random), torch.randn_like(batch.action)

    def _step_critic(self, features: Tensor, batch: Transition, noise: CQLNoise) -> dict[str, Tensor]:
        target, following = self._target(batch, noise.target)
        with torch.no_grad():
            current = self.action_distribution(features)
        candidates = cql.candidates(
            noise.random_action,
            self._sample_each(following, noise.following),
            self._sample_each(current, noise.current),
        )
        q_data, q = critic_values(self.critic, features, batch.action, candidates)
        _, penalty, multiplier_loss = self.conservatism(q_data, q, candidates.log_density)
        loss = drqv2.critic_loss(q_data, target) + penalty.sum()
        self.minimise(loss + multiplier_loss, "critic")
        metrics = {"critic_loss": loss.detach()} | critic_metrics(batch, q_data, target)
        return metrics | candidate_metrics(q, "cql_critic_q{}_{}") | numbered("cql_critic_q{}_loss", penalty)

    def _sample_each(self, policy: TruncatedNormal, noise: Tensor) -> cql.Candidates:
        """R actions (B, R, A) of a policy with means (B, A), for standard normal ``noise``."""
        policy = policy._replace(mean=policy.mean[:, None])
        action = policy.sample(noise, self.stddev_clip)
        return cql.Candidates(action, policy.log_prob(action).sum(-1))


def numbered(name: str, values: Tensor) -> dict[str, Tensor]:
    """A metric of each critic, (E,), under ``name`` with its number from 1."""
    return {name.format(k): value for k, value in enumerate(values.detach(), start=1)}


def candidate_metrics(q: Tensor, name: str) -> dict[str, Tensor]:
    """Mean values of the three kinds of candidates, from ``q`` (E, B, 3R), for each critic."""
    metrics: dict[str, Tensor] = {}
    for kind, values in zip(("rand", "next_actions", "curr_actions"), q.detach().chunk(3, -1), strict=True):
        metrics |= numbered(name.format("{}", kind), values.mean((1, 2)))
    return metrics
