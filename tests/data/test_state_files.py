"""D4RL's HDF5 and plain NPZ files of states, made here with real environments in the very layout."""

import h5py
import numpy as np
import pytest

from lightning_synther.data.state_d4rl import ENVIRONMENTS
from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.data.state_formats import load_states
from lightning_synther.data.synther_npz import export_npz
from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.factory import make_env
from lightning_synther.errors import DataError

gymnasium = pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")


def record(name, num_steps, limit, seed=0):
    """What D4RL's collection keeps: row i is observation i and what was done there; timeouts by the limit."""
    env = gymnasium.make(name, max_episode_steps=limit)
    env.action_space.seed(seed)
    rows, observation = [], env.reset(seed=seed)[0]
    for _ in range(num_steps):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, reward, following, terminated, truncated and not terminated))
        observation = env.reset()[0] if terminated or truncated else following
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    return {
        key: np.array(column, np.float32) for key, column in zip(names, zip(*rows, strict=True), strict=True)
    }


@pytest.fixture(scope="module")
def hopper():
    """About ten falls and a timeout in 300 steps."""
    arrays = record("Hopper-v5", 300, 25)
    assert arrays["terminals"].sum() >= 3
    assert arrays["timeouts"].sum() >= 1
    return arrays


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip")
        file["infos/qpos"] = np.zeros((len(arrays["rewards"]), 2))
        file["metadata/algorithm"] = b"SAC"
    return path


@pytest.fixture(params=["hdf5", "npz"])
def write(request, tmp_path):
    def write(arrays, name="hopper_medium-v2"):
        path = tmp_path / f"{name}.{request.param}"
        if request.param == "hdf5":
            return write_hdf5(path, arrays)
        np.savez(path, **arrays)
        return path

    return write


def test_a_file_with_everything(hopper, write):
    data = load_states(write(hopper))
    assert len(data) == 300
    np.testing.assert_array_equal(data.next_observation, hopper["next_observations"])
    np.testing.assert_array_equal(data.terminal[:, 0], hopper["terminals"] > 0)
    assert data.num_episodes == (hopper["terminals"] + hopper["timeouts"])[:-1].sum() + 1
    assert data.env == {"task": "gymnasium:Hopper-v4", "observation": "states", "action_repeat": 1}
    assert data.reference_scores == (-20.272305, 3234.3)


def test_derived_next_observations_are_those_of_the_environment(hopper, write):
    """The published files have none: all but the last row of an episode get back what the environment gave."""
    data = load_states(write({key: hopper[key] for key in hopper if key != "next_observations"}))
    timeouts, terminals = hopper["timeouts"] > 0, hopper["terminals"] > 0
    kept = ~timeouts
    kept[-1] &= terminals[-1]
    np.testing.assert_array_equal(data.observation, hopper["observations"][kept])
    inner = ~terminals[kept]
    np.testing.assert_array_equal(data.next_observation[inner], hopper["next_observations"][kept][inner])
    assert data.terminal.sum() == terminals.sum()


def test_without_timeouts_the_time_limit_ends_an_episode(hopper, write):
    arrays = {key: hopper[key] for key in ("observations", "actions", "rewards", "terminals")}
    wanted = load_states(write(hopper)).lengths
    data = load_states(write(arrays), max_episode_steps=25)
    ends = (hopper["terminals"] + hopper["timeouts"])[:-1].sum()
    assert data.num_episodes in (ends, ends + 1)
    # A timeout's last row is dropped, and so is the file's, which no row follows.
    by_timeout = np.flatnonzero(hopper["timeouts"])
    assert data.lengths.sum() == wanted.sum() - len(by_timeout) - (not hopper["terminals"][-1])


def test_synthers_file_of_a_store_comes_back(hopper, tmp_path):
    data = StateDataset.from_arrays(**hopper)
    back = load_states(export_npz(data.write(tmp_path / "store"), tmp_path / "upsampled.npz"))
    np.testing.assert_array_equal(back.observation, data.observation)
    np.testing.assert_array_equal(back.terminal, data.terminal)
    assert back.env is None


def test_a_name_that_is_not_d4rls_says_nothing(hopper, write):
    data = load_states(write(hopper, "mine"), env="gymnasium:Hopper-v5", reference_scores=(0.0, 10.0))
    assert data.env["task"] == "gymnasium:Hopper-v5"
    assert data.scored_env["reference_scores"] == [0.0, 10.0]
    assert load_states(write(hopper, "mine")).env is None


def chained(size, episodes=4, steps=500):
    """Episodes of ``steps`` rows that only next_observations tell apart."""
    values = np.random.default_rng(0).normal(size=(episodes, steps + 1, size)).astype(np.float32)
    rows = np.zeros(episodes * steps)
    return {
        "observations": values[:, :-1].reshape(-1, size),
        "next_observations": values[:, 1:].reshape(-1, size),
        "actions": rows[:, None],
        "rewards": rows,
        "terminals": rows,
    }


@pytest.mark.parametrize(
    ("name", "size", "env"),
    [
        ("walker_walk", 24, "walker_walk"),
        ("walker_medium-v2", 17, {"task": "walker_walk"}),
        ("hopper_hop", 15, "hopper_hop"),
        ("hopper_hop", 15, None),
        ("hopper_medium-v2", 11, "gymnasium:Ant-v5"),
    ],
)
def test_a_d4rl_name_says_nothing_about_other_environments(write, name, size, env):
    arrays = chained(size)
    data = load_states(write(arrays, name), env=env)
    assert data.reference_scores is None
    assert data.num_episodes == 4
    del arrays["next_observations"]
    with pytest.raises(DataError, match="its episodes cannot be told apart"):  # no time limit by the name
        load_states(write(arrays, name), env=env)


@pytest.mark.parametrize(
    ("name", "size", "env"),
    [
        ("hopper_medium-v2", 11, "gymnasium:Hopper-v5"),
        ("ant_medium-v0", 111, None),
        ("walker_mixed", 17, None),
    ],
)
def test_a_d4rl_name_gives_the_time_limit_of_its_family(write, name, size, env):
    arrays = chained(size)
    del arrays["next_observations"]
    data = load_states(write(arrays, name), env=env)
    assert data.lengths.tolist() == [999, 999]  # a timeout's last row goes
    assert data.reference_scores is not None


def test_other_families_take_their_references_into_gymnasiums_environments(write):
    env = "gymnasium:AntMaze_UMaze-v5"
    assert load_states(write(chained(29), "antmaze-umaze-v2"), env=env).reference_scores == (0.0, 1.0)
    assert load_states(write(chained(29), "antmaze-umaze-v2"), env="walker_walk").reference_scores is None


def test_humanoids_actions_are_rescaled(write):
    arrays = record("Humanoid-v5", 12, 10)
    path = write(arrays, "humanoid")
    with pytest.raises(DataError, match="not finite") as error:
        load_states(write(arrays | {"rewards": np.full(12, np.nan)}, "humanoid"))
    assert str(path) in str(error.value)
    path = write(arrays, "humanoid")
    data = load_states(path, action_low=-0.4, action_high=0.4)
    np.testing.assert_allclose(data.action, arrays["actions"] / 0.4, atol=1e-6)


@pytest.mark.parametrize("missing", ["observations", "terminals"])
def test_a_missing_array_is_named_with_what_is_there(hopper, write, missing):
    path = write({key: hopper[key] for key in hopper if key != missing})
    with pytest.raises(DataError, match=rf"{path.name} lacks {missing} \(it has .*rewards"):
        load_states(path)


def test_files_of_pixels_are_refused_in_a_sentence(write):
    rows = np.arange(4)
    path = write({"image": np.zeros((4, 64, 64, 3), np.uint8), "rewards": rows}, "pixels")
    with pytest.raises(DataError, match=r"lacks observations, actions, terminals \(it has image, "):
        load_states(path)
    images = np.zeros((4, 8, 8, 3), np.uint8)
    path = write(
        {"observations": images, "actions": np.zeros((4, 1)), "rewards": rows, "terminals": rows}, "images"
    )
    with pytest.raises(DataError, match="an agent on states takes vectors"):
        load_states(path)


def test_a_wrong_or_damaged_file(tmp_path, hopper):
    for name in ("a.hdf5", "a.npz"):
        (tmp_path / name).write_bytes(b"not at all")
        with pytest.raises(DataError, match=f"{name} cannot be read as"):
            load_states(tmp_path / name)
    path = write_hdf5(tmp_path / "cut.hdf5", hopper)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="cut off or damaged"):
        load_states(path)
    with pytest.raises(
        DataError, match=r"nor does such a file or folder exist: tried d4rl: .*; npz: .*; store: "
    ):
        load_states(tmp_path / "gone.hdf5")


@pytest.mark.parametrize("family", ENVIRONMENTS)
def test_the_environment_of_a_family_observes_what_its_files_hold(family):
    size, task = ENVIRONMENTS[family]
    env = make_env(EnvConfig(task, "states"))
    assert env.observation_shape == (size,)
    env.reset(0)
    assert np.isfinite(env.step(np.zeros(env.action_dim)).observation).all()
