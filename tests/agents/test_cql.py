"""Conservative Q-Learning: the losses by hand, and one trunk for all candidates."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_synther.agents import CQL, CQLSAC, cql, sac
from tests.agents.test_algorithms import build
from tests.agents.tiny import make_batch


def test_gap_by_hand() -> None:
    q_data = torch.tensor([[[1.0], [2.0]]])
    q = torch.tensor([[[0.0, 0.0], [4.0, 4.0]]])
    t = 2.0  # t log(2 exp(q / t)) - q_data
    expected = [t * math.log(2) - 1, 4 + t * math.log(2) - 2]
    torch.testing.assert_close(cql.gap(q, q_data, t), torch.tensor([sum(expected) / 2]))
    torch.testing.assert_close(cql.gap(q, q_data, t, (0.5, 1.0)), torch.tensor([0.75]))


def test_importance_sampling_estimates_the_integral() -> None:
    # sum over actions / density is unbiased for the integral of exp Q: here exp(3 a) over (-1, 1)
    generator = torch.Generator().manual_seed(0)
    action = 2 * torch.rand(1, 100_000, 1, generator=generator) - 1
    drawn = cql.Candidates(action, torch.full((1, 100_000), -math.log(2)))
    empty = cql.Candidates(action[:, :0], drawn.log_density[:, :0])
    joined = cql.candidates(action, empty, empty)
    torch.testing.assert_close(joined.log_density, drawn.log_density)
    q = 3 * action.squeeze(-1)[None]
    contrasted = cql.contrast(q[..., :1], q, joined.log_density, importance_sampling=True)
    integral = torch.logsumexp(contrasted, -1).exp() / action.shape[1]
    torch.testing.assert_close(integral, torch.tensor([[2 / 3 * math.sinh(3)]]), rtol=0.02, atol=0)


@pytest.mark.parametrize(("penalty", "direction"), [(2.0, 1), (-1.0, -1)])
def test_multiplier_grows_above_its_threshold(penalty: float, direction: int) -> None:
    log_multiplier = torch.zeros((), requires_grad=True)
    weighted = torch.full((2,), penalty, requires_grad=True)
    cql.multiplier_loss(log_multiplier, weighted, threshold=0.5).backward()
    assert weighted.grad is None
    assert torch.sign(-log_multiplier.grad) == direction
    assert cql.multiplier(torch.tensor(99.0)) == 1e6


def test_trunks_run_once_for_an_update() -> None:
    agent, rows = build(CQL, "pixels", ""), []

    def count(_: nn.Module, inputs: tuple[torch.Tensor], output: Any) -> None:
        rows.append(len(output))

    agent.critic.trunk.register_forward_hook(count)
    agent.update(make_batch(0))
    assert rows == [8, 8], "once in the critic's step, once in the actor's, on a batch of 8"


def test_cql_sac_clones_at_first_where_asked() -> None:
    agent = build(CQLSAC, "states", "", bc_steps=2, actor_lr=1e-3)
    batch = make_batch(0, shape=(5,))
    for update in range(3):
        noise, noise_actor = agent.draw(batch)
        gaussian = agent.actor.gaussian(batch.observation)
        action, log_prob = sac.squash(*gaussian, noise_actor)
        q = agent.critic(batch.observation, action).amin(0)
        worth = sac.log_density(*gaussian, batch.action) if update < 2 else q
        expected = (agent.log_temperature.exp() * log_prob - worth).mean().detach()
        metrics = agent.update(batch, (noise, noise_actor))
        torch.testing.assert_close(metrics["actor_loss"], expected)


def test_log_density_of_data_on_the_bound_is_finite() -> None:
    mean, log_std = torch.zeros(1, 2), torch.zeros(1, 2)
    action = torch.tensor([[1.0, -1.0]])
    assert sac.log_density(mean, log_std, action).isfinite()
    noise = torch.tensor([[0.3, -0.7]])
    sampled, log_prob = sac.squash(mean, log_std, noise)
    torch.testing.assert_close(sac.log_density(mean, log_std, sampled), log_prob)


def test_cql_sac_targets_may_rest() -> None:
    agent = build(CQLSAC, "states", "", target_update_period=2)
    weight = agent.critic_target.q[0].weight
    before = weight.clone()
    agent.update(make_batch(0, shape=(5,)))
    assert torch.equal(weight, before)
    agent.update(make_batch(1, shape=(5,)))
    assert not torch.equal(weight, before)
