"""OGBench's data sets, made here with its own environments and oracle in the very layout of its files."""

from pathlib import Path

import numpy as np
import pytest

from lightning_synther.data.state_formats import load_states
from lightning_synther.data.state_goals import with_goals
from lightning_synther.data.state_ogbench import parse_name
from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.factory import make_env
from lightning_synther.errors import BackendError, ConfigError, DataError

gymnasium = pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")
ogbench = pytest.importorskip("ogbench", reason="the extra `ogbench` is not installed")


def generate(env, path, lengths, act):
    """Trajectories as OGBench's scripts keep them: every row has an action, the last one of each is `terminal`."""
    columns = {key: [] for key in ("observations", "actions", "terminals", "qpos", "qvel")}
    for number, length in enumerate(lengths):
        observation, info = env.reset(seed=number)
        for step in range(length):
            action = np.clip(act(env, observation, info), -1, 1)
            following, _, _, _, info = env.step(action)
            row = (observation, action, step == length - 1, info["prev_qpos"], info["prev_qvel"])
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            observation = following
    arrays = {
        key: np.array(values, bool if key == "terminals" else np.float32) for key, values in columns.items()
    }
    for file in (path, path.with_name(f"{path.stem}-val.npz")):
        np.savez_compressed(file, **arrays)
    return arrays


def to_the_goal(env, observation, info):
    """The oracle of OGBench's own locomotion scripts: straight to the next cell of the shortest path."""
    inner = env.unwrapped
    subgoal, _ = inner.get_oracle_subgoal(inner.get_xy(), inner.cur_goal_xy)
    way = subgoal - inner.get_xy()
    return way / (np.linalg.norm(way) + 1e-6)


@pytest.fixture(scope="module")
def maze(tmp_path_factory):
    """pointmaze-medium-navigate: trajectories of 101, 51 and 81 rows."""
    np.random.seed(0)  # noqa: NPY002 (OGBench draws from the global generator)
    env = ogbench.make_env_and_datasets(
        "pointmaze-medium-singletask-v0".replace("-s", "-navigate-s"), env_only=True
    )
    path = tmp_path_factory.mktemp("ogbench") / "pointmaze-medium-navigate-v0.npz"
    arrays = generate(env, path, (201, 51, 221), to_the_goal)
    env.close()
    return path, arrays


def test_transitions_are_those_of_ogbenchs_own_loader(maze):
    path, _ = maze
    own = ogbench.load_dataset(str(path))
    data = load_states(path, seed=1)
    assert data.lengths.tolist() == [200, 50, 220]
    np.testing.assert_array_equal(data.observation[:, :2], own["observations"])
    np.testing.assert_array_equal(data.next_observation[:, :2], own["next_observations"])
    np.testing.assert_array_equal(data.action, own["actions"])
    ends = np.flatnonzero(np.diff(data.episode, append=3))
    np.testing.assert_array_equal(ends, np.flatnonzero(own["terminals"]))


def test_a_compact_data_set_is_the_same(maze, tmp_path):
    path, _ = maze
    compact = ogbench.load_dataset(str(path), compact_dataset=True)
    np.savez(tmp_path / "pointmaze-medium-navigate-v0.npz", **compact)
    same = load_states(tmp_path / "pointmaze-medium-navigate-v0.npz", seed=1)
    np.testing.assert_array_equal(same.observation, load_states(path, seed=1).observation)


def test_goals_are_states_to_come_and_reached_ones_end(maze):
    path, arrays = maze
    data = load_states(path, seed=1)
    goal = data.observation[:, 2:]
    np.testing.assert_array_equal(goal, data.next_observation[:, 2:])
    reached = data.terminal[:, 0]
    np.testing.assert_array_equal(goal[reached], data.next_observation[reached, :2])
    np.testing.assert_array_equal(data.reward[:, 0], reached)
    assert 0.15 < reached.mean() < 0.3
    known = {tuple(row) for row in arrays["observations"]}
    assert all(tuple(row) in known for row in goal)
    assert load_states(path, seed=1).fingerprint == data.fingerprint != load_states(path, seed=2).fingerprint


def test_parts_of_the_data_have_their_own_states_as_goals(maze):
    path, _ = maze
    data = load_states(path, seed=1, next_share=0.1, later_share=0.1)
    train, heldout = data.split_episodes(0.3)
    parts = [train, heldout, train.fraction(0.5), train.fraction(0.2, of="transitions")]
    assert [part.num_episodes for part in parts[:3]] == [2, 1, 1]
    for part in parts:
        own = {tuple(row) for row in part.next_observation[:, :2]}
        goals = part.observation[:, 2:]
        assert {tuple(row) for row in goals} <= own
        np.testing.assert_array_equal(goals, part.next_observation[:, 2:])
        reached = (goals == part.next_observation[:, :2]).all(axis=1)
        np.testing.assert_array_equal(part.terminal[:, 0], reached)
        np.testing.assert_array_equal(part.reward[:, 0], reached)
        known = {tuple(row) for row in data.observation[:, :2]}
        assert {tuple(row) for row in part.observation[:, :2]} <= known
    np.testing.assert_array_equal(train.observation[:, :2], data.observation[: len(train), :2])
    assert train.fraction(0.5).fingerprint == train.fraction(0.5).fingerprint
    excluded = {tuple(row) for row in heldout.next_observation[:, :2]}
    assert any(tuple(row) in excluded for row in data.observation[: len(train), 2:]), (
        "of the whole they may be"
    )


def test_shares_of_goals():
    rng = np.random.default_rng(0)
    state, episode = rng.normal(size=(4001, 1)), np.repeat(np.arange(40), 100)
    now, following = state[:-1], state[1:]
    index = {value: number for number, value in enumerate(following[:, 0])}

    def chosen(**shares):
        goals = with_goals(now, following, episode, **shares)["observations"][:, 1]
        return np.array([index[goal] for goal in goals])

    own = np.arange(4000)
    assert (chosen(next_share=1.0, later_share=0.0) == own).all()
    later = chosen(next_share=0.0, later_share=1.0, discount=0.5)
    assert (episode[later] == episode).all()
    assert ((later > own) | (own % 100 == 99)).all()
    assert (later - own)[own % 100 < 80].mean() == pytest.approx(2.0, abs=0.1)  # 1 / (1 - discount)
    anywhere = chosen(next_share=0.0, later_share=0.0)
    assert (episode[anywhere] == episode).mean() == pytest.approx(1 / 40, abs=0.01)
    with pytest.raises(ConfigError, match="are no distribution of goals"):
        chosen(next_share=0.8, later_share=0.5)


def test_a_single_task_has_ogbenchs_own_rewards(maze):
    path, _ = maze
    name = "pointmaze-medium-navigate-singletask-task1-v0"
    data = load_states(path, name=name)
    _, own, _ = ogbench.make_env_and_datasets(name, dataset_path=str(path))
    np.testing.assert_array_equal(data.observation, own["observations"])
    np.testing.assert_array_equal(data.reward[:, 0], own["rewards"])
    np.testing.assert_array_equal(data.terminal[:, 0], own["masks"] == 0)
    assert data.terminal.any(), "the oracle is to reach the goal"
    assert data.num_episodes == 3  # the trajectory goes on where the task is solved
    assert data.env["task"] == "ogbench:pointmaze-medium-singletask-task1-v0"
    assert data.reference_scores is None


def test_a_name_finds_its_files_and_its_environment_has_the_goal(maze):
    path, _ = maze
    data = load_states("pointmaze-medium-navigate-v0", dataset_dir=str(path.parent), split="val")
    assert data.name == "pointmaze-medium-navigate-v0 (pointmaze-medium-navigate-v0-val)"
    assert data.scored_env["reference_scores"] == [0.0, 1.0]
    env = make_env(EnvConfig.from_dict(data.scored_env))
    assert env.observation_shape == (data.observation.shape[1],)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = env.reset(3)
    second = env.reset(4)
    np.testing.assert_array_equal(env.reset(3), first)
    assert (first[2:] != second[2:]).any(), "goals differ between episodes"
    step = env.step(np.ones(2))
    np.testing.assert_array_equal(step.observation[2:], first[2:])
    assert (step.reward, step.discount, step.last) == (0.0, 1.0, False)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.slow
def test_a_manipulation_task_of_its_oracle(tmp_path):
    """cube-single: the oracle moves the cube, rewards are OGBench's."""
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle

    np.random.seed(0)  # noqa: NPY002
    env = gymnasium.make("cube-single-v0", mode="data_collection", terminate_at_goal=False)
    oracle, path = (
        CubePlanOracle(env=env, noise=0.1, noise_smoothing=0.5),
        tmp_path / "cube-single-play-v0.npz",
    )

    def act(env, observation, info):
        if info["time"][0] == 0:
            oracle.reset(observation, info)
        return np.array(oracle.select_action(observation, info))

    arrays = generate(env, path, (60, 40), act)
    name = "cube-single-play-singletask-v0"
    data = load_states(path, name=name)
    _, own, _ = ogbench.make_env_and_datasets(name, dataset_path=str(path))
    np.testing.assert_array_equal(data.reward[:, 0], own["rewards"])
    np.testing.assert_array_equal(data.terminal[:, 0], own["masks"] == 0)
    env = make_env(EnvConfig.from_dict(data.scored_env))
    assert env.observation_shape == arrays["observations"].shape[1:]
    goal_env = make_env(EnvConfig("ogbench:cube-single-v0", "states"))
    assert goal_env.observation_shape == load_states(path).observation.shape[1:]


def test_names():
    assert parse_name("visual-cube-single-play-v0") == ("visual-cube-single-play-v0", "visual-cube-single-v0")
    assert parse_name("antmaze-large-navigate-singletask-v0") == (
        "antmaze-large-navigate-v0",
        "antmaze-large-singletask-v0",
    )
    with pytest.raises(ConfigError, match="leave out -oraclerep"):
        parse_name("cube-single-play-oraclerep-v0")


def test_images_and_damaged_files_are_refused(maze, tmp_path):
    _, arrays = maze
    images = np.zeros((len(arrays["actions"]), 4, 4, 3), np.uint8)
    np.savez(tmp_path / "visual-cube-single-play-v0.npz", **arrays | {"observations": images})
    with pytest.raises(DataError, match=r"holds images \(4, 4, 3\): an agent on states takes vectors"):
        load_states(tmp_path / "visual-cube-single-play-v0.npz")
    np.savez(tmp_path / "short.npz", **arrays | {"actions": arrays["actions"][:5]})
    with pytest.raises(DataError, match=r"short.npz has arrays of lengths .*'actions': 5"):
        load_states(tmp_path / "short.npz")
    np.savez(tmp_path / "none.npz", actions=arrays["actions"])
    with pytest.raises(DataError, match="lacks observations, terminals"):
        load_states(tmp_path / "none.npz", format="ogbench")
    plain = {key: arrays[key] for key in ("observations", "actions", "terminals")}
    np.savez(tmp_path / "plain.npz", **plain)
    with pytest.raises(DataError, match=r"plain.npz lacks qpos, by which"):
        load_states(tmp_path / "plain.npz", name="pointmaze-medium-navigate-singletask-v0")


def test_without_network_the_sentence_says_how_the_data_come_here(tmp_path, monkeypatch):
    def unreachable(names, folder):
        raise OSError("Name or service not known")

    monkeypatch.setattr(ogbench, "download_datasets", unreachable)
    with pytest.raises(BackendError, match=r"download antmaze-large-navigate-v0.npz where there is network"):
        load_states("antmaze-large-navigate-v0", dataset_dir=str(tmp_path))
    assert not list(Path(tmp_path).iterdir())
