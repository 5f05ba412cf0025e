"""Environments of an online run: what they record, that counters alone decide it, and that they can go on."""

import numpy as np
import pytest
import torch

from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.online.environments import Environments
from lightning_synther.seeding import derive_seed

CONFIG = EnvConfig(
    "cartpole_balance", observation="states", action_repeat=2, time_limit=0.2
)  # 10 agent steps


def environments(num_envs=1, seed=0, capacity=1000, rank=0):
    return Environments(CONFIG, num_envs, capacity=capacity, gamma=0.9, seed=seed, rank=rank)


def transitions(envs):
    return envs.replay.unflatten(envs.replay.rows())


def push(states, noise):
    return np.tanh(states[:, :1] + noise)


def test_records_what_the_environment_did():
    envs = environments()
    assert envs.collect(12, explore=None) != []
    recorded = transitions(envs)
    env = ControlEnv(CONFIG)
    state = env.reset(derive_seed(0, "episode", 0, 0))
    for t in range(10):
        result = env.step(recorded.action[t].numpy())
        np.testing.assert_array_equal(recorded.observation[t], state)
        np.testing.assert_array_equal(recorded.next_observation[t], result.observation)
        assert recorded.reward[t].item() == pytest.approx(result.reward)
        assert recorded.discount[t].item() == pytest.approx(0.9)  # the time limit does not end the value
        assert result.last == (t == 9)
        state = result.observation
    # The next row starts an episode instead of following on from the last one's end.
    assert not np.array_equal(recorded.observation[10], recorded.next_observation[9])


@pytest.mark.parametrize(("num_envs", "asked", "taken"), [(1, 7, 7), (2, 8, 8), (3, 7, 9)])
def test_steps_are_counted_over_all_environments(num_envs, asked, taken):
    envs = environments(num_envs)
    envs.collect(asked, push)
    assert envs.num_steps == len(envs.replay) == taken


def test_returns_are_those_of_the_recorded_rewards():
    envs = environments(num_envs=2)
    returns = envs.collect(40, push)
    rewards = transitions(envs).reward[:40, 0].reshape(2, 10, 2)  # episode, step, environment
    np.testing.assert_allclose(returns, rewards.sum(1).flatten(), rtol=1e-6)


def test_everything_follows_from_seed_and_rank():
    def rows(**options):
        envs = environments(num_envs=2, **options)
        envs.collect(6, None)
        envs.collect(20, push)
        return transitions(envs)

    first = rows()
    assert all(torch.equal(a, b) for a, b in zip(first, rows(), strict=True))
    assert not torch.equal(first.action, rows(seed=1).action)
    assert not torch.equal(first.observation, rows(rank=1).observation)


@pytest.mark.parametrize("cut", [1, 7, 10, 23])
def test_goes_on_where_its_state_was_taken(cut):
    whole = environments(num_envs=2)
    whole.collect(2 * cut, push)
    resumed = environments(num_envs=2)
    resumed.load_state_dict(whole.state_dict())
    assert whole.collect(30, push) == resumed.collect(30, push)
    assert resumed.num_steps == whole.num_steps
    assert torch.equal(whole.replay.rows(), resumed.replay.rows())
