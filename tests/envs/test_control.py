"""One environment against dm_control itself."""

import numpy as np
import pytest
from dm_env import StepType, TimeStep

from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.envs.tasks import load_suite
from lightning_synther.errors import ConfigError

SHORT = {"time_limit": 0.2}


def actions(num, dim, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (num, dim)).astype(np.float32)


def test_states_rewards_and_images_are_dm_controls_own():
    env = ControlEnv(EnvConfig("walker_walk", frame_stack=1), seed=5)
    plain = load_suite().load("walker", "walk", task_kwargs={"random": 5})
    first, step = env.reset(), plain.reset()
    np.testing.assert_array_equal(first, plain.physics.render(84, 84, camera_id=0).transpose(2, 0, 1))
    for action in actions(5, env.action_dim):
        got = env.step(action)
        rewards = []
        for _ in range(2):
            step = plain.step(action)
            rewards.append(step.reward)
        assert got.reward == pytest.approx(sum(rewards), abs=1e-12)
        wanted = np.concatenate([np.ravel(value) for value in step.observation.values()])
        np.testing.assert_array_equal(env.state(), wanted.astype(np.float32))
        image = plain.physics.render(84, 84, camera_id=0)
        np.testing.assert_array_equal(got.observation, image.transpose(2, 0, 1))


@pytest.mark.parametrize(("task", "limit"), [("cartpole_swingup", 480), ("dog_stand", 1080)])
def test_an_image_is_no_larger_than_what_the_task_is_drawn_in(task, limit):
    for observation in ("pixels", "states"):
        with pytest.raises(
            ConfigError, match=f"is {limit + 1}, but {task} is rendered at up to {limit} pixels"
        ):
            ControlEnv(EnvConfig(task, observation, image_size=limit + 1))
    env = ControlEnv(EnvConfig(task, image_size=limit, frame_stack=1))
    assert env.reset(0).shape == (3, limit, limit)
    with pytest.raises(ConfigError, match=f"image_size is {limit + 1}, but"):
        env.render(limit + 1)


def test_frame_stack_repeats_the_first_frame_and_shifts_oldest_out():
    env = ControlEnv(EnvConfig("cartpole_swingup", image_size=32))
    first = env.reset(seed=0)
    assert first.shape == env.observation_shape == (9, 32, 32)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first[:3], first[6:])
    second = env.step([1.0]).observation
    third = env.step([1.0]).observation
    np.testing.assert_array_equal(second[:6], np.concatenate([first[:3], first[:3]]))
    np.testing.assert_array_equal(third[:6], second[3:])
    assert (third[6:] != third[3:6]).any()


class Scripted:
    """A dm_env environment with known rewards and discounts."""

    def __init__(self, steps):
        self._steps = iter(steps)
        self.seen = []

    def step(self, action):
        self.seen.append(action)
        return next(self._steps)


def test_action_repeat_discounts_rewards_and_stops_at_the_end():
    env = ControlEnv(EnvConfig("cartpole_swingup", observation="states", action_repeat=3))
    env.reset()
    observation = {"position": np.zeros(3), "velocity": np.zeros(2)}
    script = Scripted(
        [
            TimeStep(StepType.MID, 1.0, 0.5, observation),
            TimeStep(StepType.LAST, 4.0, 0.0, observation),
            TimeStep(StepType.MID, 100.0, 1.0, observation),
        ]
    )
    env._env = script
    result = env.step([0.0])
    assert (result.reward, result.discount, result.last) == (1.0 + 0.5 * 4.0, 0.0, True)
    assert len(script.seen) == 2


def test_actions_fill_the_bounds_of_the_task():
    env = ControlEnv(EnvConfig("lqr_lqr_2_1", observation="states", action_repeat=1))
    env._action_scale, env._action_offset = np.array([3.0]), np.array([1.0])  # bounds [-2, 4]
    script = Scripted([TimeStep(StepType.MID, 0.0, 1.0, {"s": np.zeros(1)})] * 2)
    env._env = script
    env.step([-1.0])
    env.step([1.0])
    assert [float(action[0]) for action in script.seen] == [-2.0, 4.0]


@pytest.mark.parametrize("task", ["cheetah_run", "lqr_lqr_2_1", "finger_turn_easy", "reacher_hard"])
def test_an_episode_depends_on_its_seed_alone(task):
    config = EnvConfig(task, observation="states")
    used, fresh = ControlEnv(config, seed=0), ControlEnv(config, seed=9)
    used.reset(seed=3)
    for action in actions(3, used.action_dim):
        used.step(action)
    np.testing.assert_array_equal(used.reset(seed=4), fresh.reset(seed=4))
    for action in actions(5, used.action_dim, seed=1):
        a, b = used.step(action), fresh.step(action)
        np.testing.assert_array_equal(a.observation, b.observation)
        assert a.reward == b.reward
    assert (used.reset(seed=5) != used.reset(seed=4)).any()
    assert (fresh.reset() != fresh.reset()).any(), "without a seed the stream goes on"


def test_episode_ends_by_the_limit_with_discount_one():
    env = ControlEnv(EnvConfig("cheetah_run", observation="states", **SHORT))
    env.reset()
    results = [env.step(np.zeros(6)) for _ in range(env.max_steps)]
    assert [result.last for result in results] == [False] * 9 + [True]
    assert results[-1].discount == 1.0
    assert ControlEnv(EnvConfig("cheetah_run", observation="states")).max_steps == 500


def test_config_survives_plain_types_and_refuses_the_rest():
    config = EnvConfig("cheetah_run", image_size=64)
    assert EnvConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="mend frame_skip"):
        EnvConfig.from_dict({"task": "cheetah_run", "frame_skip": 2})
    with pytest.raises(ConfigError, match="the missing task"):
        EnvConfig.from_dict({})
    with pytest.raises(ConfigError, match="observation is 'latents'"):
        EnvConfig("cheetah_run", observation="latents")
    with pytest.raises(ConfigError, match="frame_stack is 0"):
        EnvConfig("cheetah_run", frame_stack=0)
    with pytest.raises(ConfigError, match="time_limit is -1"):
        EnvConfig("cheetah_run", time_limit=-1)


def test_actions_of_another_task_are_refused():
    env = ControlEnv(EnvConfig("cheetah_run", observation="states"))
    env.reset()
    with pytest.raises(ConfigError, match=r"takes actions of shape \(6,\), got \(1,\)"):
        env.step([0.0])


def test_the_deprecation_that_dm_control_causes_is_not_shown(capfd):
    load_suite().load("cheetah", "run")
    assert "settotalmass" not in "".join(capfd.readouterr())
