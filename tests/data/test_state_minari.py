"""Minari's datasets of states, recorded here by its own collector in real environments."""

import json

import numpy as np
import pytest

from lightning_synther.data.minari import dataset_folder
from lightning_synther.data.state_formats import load_states
from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.factory import make_env
from lightning_synther.errors import BackendError, DataError

gymnasium = pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")
minari = pytest.importorskip("minari", reason="the extra `minari` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Maze(gymnasium.Env):
    """A goal environment of AntMaze's form, in a line: the goal is at 0.3, images are optional."""

    def __init__(self, images=False, render_mode=None):
        one = gymnasium.spaces.Box(-9.0, 9.0, (1,), np.float64)
        parts = {
            "observation": gymnasium.spaces.Box(-9.0, 9.0, (2,)),
            "achieved_goal": one,
            "desired_goal": one,
        }
        self.observation_space = gymnasium.spaces.Dict(parts)
        if images:
            self.observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-0.2, 0.4, (1,))
        self.images = images

    def _observe(self):
        if self.images:
            return np.zeros((8, 8, 3), np.uint8)
        where = np.full(1, self.where)
        return {
            "observation": np.full(2, 2, np.float32),
            "achieved_goal": where,
            "desired_goal": np.full(1, 0.3),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where = 0.0
        return self._observe(), {}

    def step(self, action):
        self.where += float(action[0])
        reached = self.where >= 0.3
        return self._observe(), float(reached), reached, False, {}


@pytest.fixture(autouse=True)
def _datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    gymnasium.register("Maze-v0", f"{__name__}:Maze", max_episode_steps=4)
    yield
    del gymnasium.registry["Maze-v0"]


def record(name, dataset_id, num_episodes=4, seed=0, env_kwargs=None, **metadata):
    """A dataset of random actions, and what the environment gave at every step."""
    env = minari.DataCollector(gymnasium.make(name, **(env_kwargs or {})))
    env.action_space.seed(seed)
    steps = []
    for episode in range(num_episodes):
        observation, over = env.reset(seed=seed + episode)[0], False
        while not over:
            action = env.action_space.sample()
            following, reward, terminated, truncated, _ = env.step(action)
            steps.append((observation, action, reward, following, terminated, episode))
            observation, over = following, terminated or truncated
    env.create_dataset(dataset_id, **metadata)
    env.close()
    return [list(column) for column in zip(*steps, strict=True)]


def test_hopper_comes_back_step_by_step(tmp_path):
    steps = record("Hopper-v5", "mine/hopper/random-v0", env_kwargs={"max_episode_steps": 22}, num_episodes=6)
    data = load_states("mine/hopper/random-v0")
    observation, action, reward, following, terminated, episode = steps
    np.testing.assert_array_equal(data.observation, np.array(observation, np.float32))
    np.testing.assert_array_equal(data.next_observation, np.array(following, np.float32))
    np.testing.assert_allclose(data.action, action, atol=1e-6)
    np.testing.assert_allclose(data.reward[:, 0], reward, rtol=1e-6)
    assert data.terminal[:, 0].tolist() == terminated
    assert 0 < sum(terminated) < 6, "both ends are to occur"
    assert data.episode.tolist() == episode
    assert data.name == "mine/hopper/random-v0"
    same = load_states(tmp_path / "datasets" / "mine/hopper/random-v0")
    assert same.fingerprint == data.fingerprint


def test_cheetah_never_ends_and_its_environment_is_built_again():
    settings = {"max_episode_steps": 30, "reset_noise_scale": 0.0}
    record(
        "HalfCheetah-v5", "cheetah-v0", 2, env_kwargs=settings, ref_min_score=-280.0, ref_max_score=12135.0
    )
    data = load_states("cheetah-v0")
    assert not data.terminal.any()
    assert data.lengths.tolist() == [30, 30]
    assert data.reference_scores == (-280.0, 12135.0)
    env = make_env(EnvConfig.from_dict(data.scored_env))
    assert env.max_steps == 30
    np.testing.assert_array_equal(env.reset(0), data.observation[0])  # without noise every start is the same
    np.testing.assert_allclose(env.step(data.action[0]).observation, data.next_observation[0], atol=1e-6)


def test_goals_become_part_of_the_observation_as_in_the_live_environment():
    steps = record("Maze-v0", "maze/dense-v0", 5)
    data = load_states("maze/dense-v0")
    np.testing.assert_allclose(data.observation[0], [0, 0.3, 2, 2])  # achieved, desired, observation
    raw = np.array(steps[1])[:, 0]
    np.testing.assert_allclose(data.action[:, 0], (raw - 0.1) / 0.3, atol=1e-6)
    env = make_env(EnvConfig.from_dict(data.scored_env))
    env.reset(0)
    np.testing.assert_allclose(env.step(data.action[0]).observation, data.next_observation[0], atol=1e-6)


def test_another_environment_can_be_given():
    record("Maze-v0", "maze/other-v0", 2)
    assert load_states("maze/other-v0", env="gymnasium:Hopper-v5").env["task"] == "gymnasium:Hopper-v5"


def test_images_and_damaged_files_are_refused():
    record("Maze-v0", "maze/images-v0", 2, env_kwargs={"images": True})
    with pytest.raises(DataError, match=r"maze/images-v0 observes images \(8, 8, 3\)"):
        load_states("maze/images-v0")
    record("Maze-v0", "maze/cut-v0", 2)
    folder = dataset_folder(minari.storage.get_dataset_path("maze/cut-v0"))
    (folder / "main_data.hdf5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="maze/cut-v0 cannot be read by Minari"):
        load_states("maze/cut-v0")


def test_a_dataset_of_another_version_is_refused():
    record("Maze-v0", "maze/old-v0", 2)
    metadata = dataset_folder(minari.storage.get_dataset_path("maze/old-v0")) / "metadata.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"minari_version": "0.0.1"}))
    with pytest.raises(DataError, match="does not support the dataset"):
        load_states("maze/old-v0")


def test_without_network_the_sentence_says_how_the_data_come_here(monkeypatch):
    def unreachable(name):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(minari, "download_dataset", unreachable)
    with pytest.raises(
        BackendError, match="run `minari download mujoco/hopper/medium-v0` where there is network"
    ):
        load_states("mujoco/hopper/medium-v0")
    with pytest.raises(DataError, match="set download=True"):
        load_states("mujoco/hopper/medium-v0", download=False)


def test_an_id_that_the_host_does_not_have(monkeypatch):
    def unknown(name):
        raise ValueError("Couldn't find any version for dataset mujoco/hoper")

    monkeypatch.setattr(minari, "download_dataset", unknown)
    with pytest.raises(DataError, match="Minari's host has none: Couldn't find any version"):
        load_states("mujoco/hoper/medium-v0")
