"""Gymnasium's environments behind the interface of dm_control's, against Gymnasium itself."""

import numpy as np
import pytest

from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.control import ControlEnv
from lightning_synther.envs.factory import make_env
from lightning_synther.envs.pool import EnvPool
from lightning_synther.envs.spaces import flat_size, flatten
from lightning_synther.errors import BackendError, ConfigError
from lightning_synther.evaluation.rollout import rollout

gymnasium = pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")
spaces = gymnasium.spaces


class Goal(gymnasium.Env):
    """Counts its steps; ends for good after ``length`` of them; actions in [-2, 4]."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's own form)

    observation_space = spaces.Dict(
        {
            "observation": spaces.Box(-9, 9, (2, 2)),
            "desired_goal": spaces.Dict({"b": spaces.Box(-9, 9, (1,)), "a": spaces.Box(-9, 9, (1,))}),
            "achieved_goal": spaces.Box(-9, 9, (1,)),
        }
    )
    action_space = spaces.Box(-2.0, 4.0, (1,))

    def __init__(self, length=3, render_mode=None):
        self.length = length

    def _observe(self):
        goal = {"a": np.ones(1), "b": np.full(1, 2.0)}
        return {
            "achieved_goal": np.full(1, self.count),
            "desired_goal": goal,
            "observation": np.arange(4.0).reshape(2, 2),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._observe(), {}

    def step(self, action):
        self.count += 1
        return self._observe(), float(action[0]), self.count == self.length, False, {}

    def render(self):
        return np.full((60, 80, 3), self.count, np.uint8)


@pytest.fixture(autouse=True)
def _registered():
    gymnasium.register("Goal-v0", Goal, max_episode_steps=5)
    yield
    del gymnasium.registry["Goal-v0"]


def states(task, **settings):
    return EnvConfig(task, "states", **settings)


def test_states_and_rewards_are_gymnasiums_own():
    env, plain = make_env(states("gymnasium:HalfCheetah-v5")), gymnasium.make("HalfCheetah-v5")
    assert (env.config.action_repeat, env.max_steps, env.observation_shape, env.action_dim) == (
        1,
        1000,
        (17,),
        6,
    )
    observation, _ = plain.reset(seed=3)
    np.testing.assert_array_equal(env.reset(3), observation.astype(np.float32))
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 6)).astype(np.float32)
    for action in actions:
        got = env.step(action)
        observation, reward, *_ = plain.step(action)
        np.testing.assert_array_equal(got.observation, observation.astype(np.float32))
        assert (got.reward, got.discount, got.last) == (pytest.approx(reward), 1.0, False)


def test_an_episode_depends_on_its_seed_alone():
    env, other = make_env(states("gymnasium:Hopper-v5")), make_env(states("gymnasium:Hopper-v5"), seed=9)
    first = env.reset(5)
    other.reset(1)
    other.step(np.zeros(3))
    np.testing.assert_array_equal(other.reset(5), first)
    assert (env.reset() != first).any()


def test_termination_has_discount_0_and_truncation_1():
    hopper = make_env(states("gymnasium:Hopper-v5"))
    hopper.reset(0)
    for _ in range(200):
        step = hopper.step([1.0, 1.0, 1.0])
        if step.last:
            break
    assert (step.last, step.discount) == (True, 0.0)
    short = make_env(states("gymnasium:HalfCheetah-v5", env_kwargs={"max_episode_steps": 3}))
    short.reset(0)
    results = [short.step(np.zeros(6)) for _ in range(3)]
    assert [(step.last, step.discount) for step in results] == [(False, 1), (False, 1), (True, 1)]
    assert short.max_steps == 3


def test_repeated_actions_sum_rewards_and_stop_at_the_end():
    env = make_env(states("gymnasium:Goal-v0", action_repeat=2))
    env.reset(0)
    assert env.max_steps == 3
    assert env.step([1.0]).reward == 8.0  # 4, twice
    last = env.step([0.0])
    assert (last.reward, last.last, last.discount) == (1.0, True, 0.0)  # the middle of [-2, 4], once


def test_goals_are_flattened_by_name_as_the_space_has_them():
    env = make_env(states("gymnasium:Goal-v0"))
    assert env.observation_shape == (7,)
    env.reset(0)
    assert env.step([0.0]).observation.tolist() == [
        1,
        1,
        2,
        0,
        1,
        2,
        3,
    ]  # achieved, desired a, b, observation
    episode = {
        "achieved_goal": np.array([[0], [1]]),
        "desired_goal": {"a": np.ones((2, 1)), "b": np.full((2, 1), 2)},
        "observation": np.arange(8).reshape(2, 2, 2),
    }
    flat = flatten(Goal.observation_space, episode, num_leading=1)
    assert flat.tolist() == [[0, 1, 2, 0, 1, 2, 3], [1, 1, 2, 4, 5, 6, 7]]
    assert flat.dtype == np.float32


def test_pixels_are_rendered_scaled_and_stacked():
    env = make_env(EnvConfig("gymnasium:Goal-v0", image_size=20, frame_stack=2))
    assert env.reset(0).shape == env.observation_shape == (6, 20, 20)
    assert env.step([0.0]).observation[:, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert env.render(30).shape == (30, 30, 3)


class Unseen(Goal):
    """Takes no render_mode, as the environments of a beginner."""

    def __init__(self):
        super().__init__()

    def render(self):
        return None


def test_an_environment_that_cannot_be_rendered_is_one_on_states():
    gymnasium.register("Unseen-v0", Unseen)
    try:
        env = make_env(states("gymnasium:Unseen-v0"))
        env.reset(0)
        assert env.max_steps is None
        with pytest.raises(ConfigError, match="set observation to states"):
            env.render(84)
    finally:
        del gymnasium.registry["Unseen-v0"]


def test_a_real_scene_is_rendered():
    env = make_env(states("gymnasium:Hopper-v5"))
    env.reset(0)
    image = env.render(84)
    assert (image.shape, image.dtype) == ((84, 84, 3), np.uint8)
    assert image.std() > 10


def test_a_pool_of_them_and_an_environment_that_ends_at_its_first_step():
    config = states("gymnasium:Goal-v0", env_kwargs={"length": 1})
    results = rollout(lambda observation: np.zeros((len(observation), 1)), config, [1, 2, 3], 0, num_envs=2)
    assert [(result.episode_return, result.length) for result in results] == [(1.0, 1)] * 3
    with EnvPool(states("gymnasium:Hopper-v5"), 2, num_workers=1) as pool:
        first = pool.reset([4, 5])
        alone = make_env(pool.config)
        np.testing.assert_array_equal(first[1], alone.reset(5))
        np.testing.assert_array_equal(
            pool.step(np.zeros((2, 3))).observation[1], alone.step(np.zeros(3)).observation
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "gymnasium:HalfCheeta-v5"}, "no environment 'HalfCheeta-v5': did you mean HalfCheetah-v5"),
        ({"task": "gymnasium:CartPole-v1"}, "takes actions of Discrete"),
        ({"task": "gymnasium:Goal-v0", "env_kwargs": {"size": 3}}, "cannot be made with env_kwargs"),
        ({"task": "brax:ant"}, "give a dm_control task .* or one of gymnasium:<id>"),
        ({"task": "gymnasium:Goal-v0", "time_limit": 1.0}, "env_kwargs.max_episode_steps"),
        ({"task": "cheetah_run", "env_kwargs": {"a": 1}}, "arguments of gymnasium.make"),
        ({"task": "cheetah_run", "reference_scores": (2, 1)}, "a larger one"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_env(states(**settings))


def test_packages_that_are_missing_are_named(monkeypatch):
    with pytest.raises(BackendError, match="pip install gymnasium-robotics"):
        make_env(states("gymnasium:AntMaze_UMaze-v5"))
    monkeypatch.setitem(__import__("sys").modules, "ogbench", None)
    with pytest.raises(BackendError, match=r'pip install "lightning-synther\[ogbench\]"'):
        make_env(states("ogbench:cube-single-v0"))


def test_what_is_dm_controls_alone_is_refused():
    env = make_env(states("gymnasium:Hopper-v5"))
    with pytest.raises(ConfigError, match="dm_control only"):
        env.physics_state()
    with pytest.raises(ConfigError, match="is no dm_control task"):
        ControlEnv(states("gymnasium:Hopper-v5"))
    with pytest.raises(ConfigError, match=r"shape \(3,\), got \(2,\)"):
        env.step([0.0, 0.0])


def test_images_make_no_state():
    with pytest.raises(ConfigError, match=r"images \(8, 8, 3\)"):
        flat_size(spaces.Box(0, 255, (8, 8, 3), np.uint8), "mine")
    with pytest.raises(ConfigError, match="only numbers"):
        flat_size(spaces.Dict({"a": spaces.Discrete(3)}), "mine")


def test_settings_travel_in_plain_types_and_old_ones_are_read():
    config = states(
        "gymnasium:Hopper-v5", env_kwargs={"max_episode_steps": 9}, reference_scores=(-20.0, 3234.0)
    )
    assert EnvConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert config.to_dict()["reference_scores"] == [-20.0, 3234.0]
    old = {
        "task": "cheetah_run",
        "observation": "pixels",
        "image_size": 84,
        "frame_stack": 3,
        "action_repeat": 2,
        "time_limit": None,
    }
    assert EnvConfig.from_dict(old).to_dict() == old == EnvConfig("cheetah_run").to_dict()
