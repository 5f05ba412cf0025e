"""REDQ: targets from a random subset, when the actor learns, its temperature, and what it refuses."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from lightning_synther.agents import REDQ, redq
from lightning_synther.errors import ConfigError
from lightning_synther.online.interaction import OnlineData
from tests.agents.test_algorithms import build
from tests.agents.tiny import make_batch, trainer


def test_targets_and_actor_loss_by_hand() -> None:
    q = torch.tensor([[[1.0]], [[5.0]], [[3.0]]])
    members = torch.tensor([1, 2])
    assert redq.target_values(q, members, "min").amin(0).item() == 3
    assert redq.target_values(q, members, "ave").amin(0).item() == 3
    assert redq.target_values(q, torch.tensor([0, 1]), "min").amin(0).item() == 1
    loss = redq.actor_loss(q, torch.tensor([[2.0]]), torch.tensor(0.5))
    torch.testing.assert_close(loss, torch.tensor(1.0 - 3.0))


def test_every_pair_of_critics_is_drawn() -> None:
    agent, batch = build(REDQ, "states", ""), make_batch(0, shape=(5,))
    torch.manual_seed(0)
    pairs = Counter(frozenset(agent.draw(batch).members.tolist()) for _ in range(600))
    assert len(pairs) == 6
    assert all(len(pair) == 2 for pair in pairs)
    assert min(pairs.values()) > 60  # 100 expected, 4.4 deviations below


@pytest.mark.parametrize(
    ("utd_ratio", "delay", "due"),
    [(4, 20, [3, 7]), (4, 2, [1, 3, 5, 7]), (4, 3, [2, 3, 6, 7]), (1, 20, list(range(8)))],
)
def test_actor_learns_in_each_round(utd_ratio: int, delay: int, due: list[int]) -> None:
    agent = build(REDQ, "states", "", utd_ratio=utd_ratio, policy_update_delay=delay)
    metrics = [agent.update(make_batch(i, shape=(5,))) for i in range(8)]
    assert [i for i, found in enumerate(metrics) if "actor_loss" in found] == due


def test_temperature_is_alpha_until_the_actors_first_update() -> None:
    agent = build(REDQ, "states", "", alpha=0.3, utd_ratio=2)
    agent.update(make_batch(0, shape=(5,)))
    assert agent.temperature.item() == pytest.approx(0.3)
    agent.update(make_batch(1, shape=(5,)))
    assert agent.temperature.item() == pytest.approx(agent.log_temperature.exp().item())
    fixed = build(REDQ, "states", "", alpha=0.3, learn_temperature=False, utd_ratio=1)
    metrics = fixed.update(make_batch(0, shape=(5,)))
    assert fixed.temperature.item() == pytest.approx(0.3)
    assert "temperature_loss" not in metrics


def test_refuses_subsets_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"num_min is 5: it must be in 1 … num_critics \(4\)"):
        build(REDQ, "states", "", num_min=5)
    with pytest.raises(ConfigError, match="q_target_mode is 'mean': give 'min' or 'ave'"):
        build(REDQ, "states", "", q_target_mode="mean")


def test_learns_online() -> None:
    env = {"task": "cartpole_balance", "observation": "states", "time_limit": 0.2}
    sizes = {"observation_dim": 5, "action_dim": 1, "hidden_dim": 16, "num_critics": 4}
    agent = REDQ(**sizes, utd_ratio=4, env=env)
    data = OnlineData(env, start_steps=24, update_to_data_ratio=4, batch_size=8, updates_per_step=4)
    run = trainer(12, limit_val_batches=0)
    run.fit(agent, data)
    assert run.global_step == agent.num_updates == 12
    assert data.environments.num_steps == 24 + 3
