"""Rollouts against a plain loop over one environment."""

import numpy as np
import pytest

from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.envs.pool import BatchStep
from lightning_synther.errors import ConfigError
from lightning_synther.evaluation import rollout as module
from lightning_synther.evaluation.rollout import rollout

STATES = EnvConfig("cartpole_swingup", observation="states", time_limit=0.3)
PIXELS = EnvConfig("cartpole_swingup", image_size=16, time_limit=0.08)


def policy(observation):
    """Any deterministic function of each row alone."""
    return np.sin(observation.reshape(len(observation), -1).astype(np.float64).sum(axis=1, keepdims=True))


def one_by_one(config, seeds):
    env, results = ControlEnv(config), []
    for seed in seeds:
        observation, total, length, last = env.reset(seed), 0.0, 0, False
        while not last:
            observation, reward, _, last = env.step(policy(observation[None])[0])
            total, length = total + np.float32(reward), length + 1
        results.append((seed, pytest.approx(total, rel=1e-5), length))
    return results


@pytest.mark.parametrize(
    ("num_workers", "num_envs"), [(0, 16), (0, 2), (1, 3), (2, 5), (2, 1)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("config", [STATES, PIXELS], ids=["states", "pixels"])
def test_any_number_of_workers_and_environments_gives_the_plain_loops_episodes(config, num_workers, num_envs):
    seeds = [5, 1, 2, 3, 4]
    results = rollout(policy, config, seeds, num_workers, num_envs=num_envs)
    assert [(r.seed, r.episode_return, r.length) for r in results] == one_by_one(config, seeds)
    assert all(result.frames is None for result in results)


class Pool:
    """Episodes of different lengths: environment i ends after as many steps as its seed says."""

    config, max_steps = STATES, 5

    def __init__(self, config, num_envs, num_workers):
        self.num_envs, self.left, self.batches = num_envs, {}, []
        Pool.made = self

    def reset(self, seeds, active):
        self.left |= dict(zip(active, seeds, strict=True))
        return np.array([[self.left[env]] for env in active], np.float32)

    def step(self, actions, active):
        self.batches.append(list(active))
        assert [row[0] for row in actions] == [10 * self.left[env] for env in active], "rows keep their place"
        for env in active:
            self.left[env] -= 1
        left = np.array([[self.left[env]] for env in active], np.float32)
        return BatchStep(left, np.ones(len(active), np.float32), np.ones(len(active)), left[:, 0] == 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_finished_episodes_make_room_and_idle_environments_are_not_stepped(monkeypatch):
    monkeypatch.setattr(module, "EnvPool", Pool)
    seeds = [2, 5, 1, 3]
    results = rollout(lambda observation: 10 * observation, STATES, seeds, num_envs=2)
    assert [(result.seed, result.length, result.episode_return) for result in results] == [
        (seed, seed, seed) for seed in seeds
    ]
    assert Pool.made.batches == [[0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0]]


def test_recorded_frames_are_the_episodes_images():
    config = EnvConfig("cartpole_swingup", time_limit=0.08)
    filmed, plain = rollout(policy, config, [3, 4], 0, record=1)
    assert filmed.frames.shape == (filmed.length + 1, 84, 84, 3)
    assert plain.frames is None
    env = ControlEnv(config)
    observation = env.reset(3)
    np.testing.assert_array_equal(filmed.frames[0], env.render(84))
    env.step(policy(observation[None])[0])
    np.testing.assert_array_equal(filmed.frames[1], env.render(84))


@pytest.mark.parametrize("config", [STATES, PIXELS], ids=["states", "pixels"])
def test_small_images_and_states_are_filmed_at_84_pixels(config):
    (result,) = rollout(policy, config, [3], 0, record=1)
    env = ControlEnv(config)
    env.reset(3)
    np.testing.assert_array_equal(result.frames[0], env.render(84))


def test_no_seeds_no_episodes():
    assert rollout(policy, STATES, []) == []


def test_the_policys_exception_arrives_and_workers_end():
    def broken(observation):
        raise ConfigError("no policy here")

    with pytest.raises(ConfigError, match="no policy here"):
        rollout(broken, STATES, [0, 1], 2)


def test_progress_shows_steps(capfd):
    rollout(policy, STATES, [0, 1], 0, progress=True)
    assert "/30" in capfd.readouterr().err
    rollout(policy, STATES, [0, 1], 0, progress=False)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("num_workers", [0, 1])
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
def test_an_episode_without_a_time_limit_is_not_begun(settings, remedy, num_workers):
    config = EnvConfig(observation="states", **settings)
    with pytest.raises(ConfigError, match=f"an episode of {config.task} may never end: {remedy}"):
        rollout(policy, config, [0], num_workers)


def test_the_remedy_for_an_episode_without_a_time_limit_is_one():
    limited = {"task": "gymnasium:Pendulum-v1", "env_kwargs": {"max_episode_steps": 7}}
    [result] = rollout(policy, EnvConfig(observation="states", **limited), [0], num_workers=0)
    assert result.length == 7
    [result] = rollout(
        policy, EnvConfig("lqr_lqr_2_1", observation="states", time_limit=0.2), [0], num_workers=0
    )
    assert 1 <= result.length <= 10
