"""A trained agent becomes a policy file that acts like it, beside a card that says what it returned."""

import json
from datetime import date

import numpy as np
import pytest
import torch

from lightning_synther.agents.sac_module import SAC
from lightning_synther.envs.control import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.online.export import export_agent, play
from lightning_synther.online.policies import load_policy, read_card

ENV = {"task": "reacher_easy", "observation": "states", "action_repeat": 4, "time_limit": 0.4}


@pytest.fixture
def agent():
    torch.manual_seed(0)
    return SAC(observation_dim=6, action_dim=2, hidden_dim=32, num_layers=3, env=ENV)


@pytest.fixture
def exported(agent, tmp_path):
    path = tmp_path / "policies" / "half.safetensors"
    return path, export_agent(agent, path, {"level": "half", "seed": 3})


def test_the_file_acts_like_the_agent(agent, exported):
    path, _ = exported
    policy = load_policy(str(path), "reacher_easy")
    states = np.random.default_rng(0).normal(size=(50, 6)).astype("f4")
    noise = np.random.default_rng(1).standard_normal((50, 2), dtype=np.float32)
    sampled = agent.explore(torch.from_numpy(states), torch.from_numpy(noise))
    np.testing.assert_allclose(policy.act(states, np.random.default_rng(1)), sampled, rtol=1e-5, atol=1e-6)
    mean = agent.policy(torch.from_numpy(states))
    np.testing.assert_allclose(
        policy.act(states, np.random.default_rng(1), deterministic=True), mean, atol=1e-6
    )
    assert policy.action_repeat == 4


def test_the_card_holds_what_the_file_returned(exported):
    path, card = exported
    assert json.loads(path.with_suffix(".json").read_text()) == card == read_card(str(path), "reacher_easy")
    assert (card["task"], card["action_repeat"], card["level"], card["seed"]) == (
        "reacher_easy",
        4,
        "half",
        3,
    )
    assert card["date"] == date.today().isoformat()
    policy = load_policy(str(path), "reacher_easy")
    config = EnvConfig.from_dict(ENV)
    assert card["returns"] == [round(play(policy, config, seed), 2) for seed in card["episode_seeds"]]
    assert card["return_mean"] == pytest.approx(np.mean(card["returns"]), abs=0.01)
    assert {"torch", "dm-control", "mujoco"} <= set(card["versions"])


def test_an_agent_without_environment_cannot_be_exported(tmp_path):
    agent = SAC(observation_dim=6, action_dim=2, hidden_dim=8)
    with pytest.raises(ConfigError, match=r"knows its environment \(model\.env\)"):
        export_agent(agent, tmp_path / "x.safetensors", {})


def test_an_agent_of_another_action_range_cannot_be_exported(tmp_path):
    agent = SAC(observation_dim=6, action_dim=2, hidden_dim=8, env=ENV, max_action=2.0)
    with pytest.raises(ConfigError, match=r"acts in \[-1, 1\], but the agent's max_action is 2\.0"):
        export_agent(agent, tmp_path / "x.safetensors", {})


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"task": "lqr_lqr_2_1"}, "give time_limit, in simulated seconds"),
        (
            {"task": "gymnasium:Pendulum-v1", "env_kwargs": {"max_episode_steps": -1}},
            "give env_kwargs.max_episode_steps, or register",
        ),
    ],
)
def test_an_episode_without_a_time_limit_is_not_begun(settings, remedy):
    config = EnvConfig(observation="states", **settings)
    with pytest.raises(ConfigError, match=f"an episode of {config.task} may never end: {remedy}"):
        play(load_policy("random", config.task), config, seed=0)
