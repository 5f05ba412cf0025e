"""Online data of gymnasium environments: what ends an episode for good, and episodes that end at their first step."""

import numpy as np
import pytest
import torch

from lightning_synther.envs.config import EnvConfig
from lightning_synther.online.environments import Environments
from lightning_synther.online.interaction import OnlineData

gymnasium = pytest.importorskip("gymnasium")


class EndsAtOnce(gymnasium.Env):
    """The reward is the action; every episode ends for good at its first step."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        return np.ones(2, np.float32), float(action[0]), True, False, {}


@pytest.fixture
def ends_at_once():
    gymnasium.register("EndsAtOnce-v0", entry_point=EndsAtOnce, max_episode_steps=5)
    yield "gymnasium:EndsAtOnce-v0"
    del gymnasium.registry["EndsAtOnce-v0"]


def transitions(envs):
    return envs.replay.unflatten(envs.replay.rows())


@pytest.mark.parametrize("num_envs", [1, 3])
def test_an_episode_that_ends_at_its_first_step_is_a_transition_without_a_future(ends_at_once, num_envs):
    config = EnvConfig(ends_at_once, observation="states")
    envs = Environments(config, num_envs, capacity=50, gamma=0.9, seed=0)
    returns = envs.collect(12, explore=None)
    found = transitions(envs)
    assert len(returns) == len(found.reward) == 12
    assert (found.discount == 0).all()
    assert torch.equal(found.reward, found.action)
    assert len({tuple(row) for row in found.observation.tolist()}) == 12, "an episode each"
    np.testing.assert_allclose(sorted(returns), sorted(found.reward[:, 0].tolist()), rtol=1e-6)


def test_hopper_ends_for_good_where_it_falls(tmp_path):
    config = EnvConfig("gymnasium:Hopper-v5", observation="states")
    envs = Environments(config, 1, capacity=500, gamma=0.99, seed=0)
    returns = envs.collect(150, explore=None)
    found = transitions(envs)
    ends = int((found.discount == 0).sum())
    assert ends == len(returns) > 2
    torch.testing.assert_close(found.discount.unique(), torch.tensor([0.0, 0.99]))
    resumed = Environments(config, 1, capacity=500, gamma=0.99, seed=0)
    resumed.load_state_dict(envs.state_dict())
    assert envs.collect(60, explore=None) == resumed.collect(60, explore=None)
    assert torch.equal(envs.replay.rows(), resumed.replay.rows())


def test_the_agent_takes_its_sizes_from_the_environment():
    data = OnlineData({"task": "gymnasium:Hopper-v5", "observation": "states"})
    sizes = data.agent_arguments()
    assert (sizes["observation_dim"], sizes["action_dim"]) == (11, 3)
    assert sizes["env"]["action_repeat"] == 1
