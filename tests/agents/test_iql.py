"""Implicit Q-Learning: the losses by hand and against torch.distributions, and the actor's learning rate."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Normal

from lightning_synther import ReplayData, collect_states, train
from lightning_synther.agents import IQL, iql
from lightning_synther.errors import ConfigError
from lightning_synther.stages.config.module import ModuleConfig
from tests.agents.test_algorithms import build
from tests.agents.tiny import make_batch


def test_value_loss_is_the_expectile_regression_by_hand() -> None:
    advantage = iql.advantage(torch.tensor([[[3.0], [1.0]], [[2.0], [4.0]]]), torch.tensor([[0.0], [2.0]]))
    torch.testing.assert_close(advantage, torch.tensor([[2.0], [-1.0]]))
    torch.testing.assert_close(iql.value_loss(advantage, 0.9), torch.tensor((0.9 * 4 + 0.1 * 1) / 2))


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.95])
def test_value_loss_is_least_at_the_expectile(expectile: float) -> None:
    q = torch.randn(1, 500, 1, generator=torch.Generator().manual_seed(0))
    value = torch.zeros(1, 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([value], max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = iql.value_loss(iql.advantage(q, value), expectile)
        loss.backward()
        return loss

    optimizer.step(closure)
    above = (q - value).clamp(min=0).sum()
    below = (value - q).clamp(min=0).sum()
    torch.testing.assert_close(expectile * above, (1 - expectile) * below, rtol=1e-3, atol=1e-3)


def test_costs() -> None:
    mean, action = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    log_std = torch.tensor([-1.0, 0.0, 0.5])
    expected = -Independent(Normal(mean, log_std.exp()), 1).log_prob(action)
    torch.testing.assert_close(iql.gaussian_cost(mean, log_std, action)[:, 0], expected)
    distance = iql.deterministic_cost(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]))
    torch.testing.assert_close(distance, torch.tensor([[5.0]]))


def test_weight_is_bounded_and_stops_the_gradient() -> None:
    advantage = torch.tensor([[0.0], [1.0], [50.0]], requires_grad=True)
    weight = iql.regression_weight(advantage, beta=2.0, limit=100.0)
    torch.testing.assert_close(weight[:, 0], torch.tensor([1.0, torch.tensor(2.0).exp(), 100.0]))
    assert not weight.requires_grad


def test_the_actors_learning_rate_falls_to_zero_and_survives_the_end() -> None:
    agent = build(IQL, "states", "", max_steps=2)
    for i in range(3):
        before = agent.actor.policy[0].weight.detach().clone()
        agent.update(make_batch(i, shape=(5,)))
    assert torch.equal(agent.actor.policy[0].weight, before), "the third update has no learning rate left"


def test_the_schedule_is_as_long_as_the_training(tmp_path) -> None:
    store = collect_states("cartpole_swingup", "random", str(tmp_path / "states"), episodes=1, time_limit=0.5)
    agent = IQL(observation_dim=5, action_dim=1, hidden_dim=8)
    train(agent, ReplayData(str(store.path), mixing="real", batch_size=4, updates_per_step=1), num_updates=4)
    assert agent.actor_lr == pytest.approx(0)
    agent.num_updates = 2
    assert agent.actor_lr == pytest.approx(agent.lr / 2)
    with pytest.raises(ConfigError, match=r"set model\.max_steps, or trainer\.max_steps"):
        IQL(observation_dim=5, action_dim=2, hidden_dim=8).update(make_batch(0, shape=(5,)))


@pytest.mark.parametrize(("settings", "extensible"), [({}, False), ({"max_steps": 9}, True)])
def test_a_longer_training_goes_on_only_if_the_schedule_has_its_own_length(settings, extensible) -> None:
    assert ModuleConfig(IQL, settings).extensible("max_steps") == ("max_steps" if extensible else None)


def test_both_actors_act_within_bounds() -> None:
    for deterministic in (False, True):
        agent = build(IQL, "states", "", iql_deterministic=deterministic)
        assert agent.policy(100 * make_batch(0, shape=(5,)).observation).abs().max() <= 1
