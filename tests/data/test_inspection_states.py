"""`inspect` of offline data on states, and of the stores that they become."""

import h5py
import numpy as np
import pytest

from lightning_synther.__main__ import main
from lightning_synther.data.inspection import inspect_path
from lightning_synther.data.state_formats import load_states


@pytest.fixture
def path(tmp_path):
    """Two episodes of three transitions, returns 3 and 6, the first ended for good."""
    path = tmp_path / "hopper_medium-v2.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.arange(66.0).reshape(6, 11) * np.append(np.ones(10), 0)
        file["next_observations"] = file["observations"][()] + 1
        file["actions"] = np.linspace(-0.5, 1, 18).reshape(6, 3)
        file["rewards"] = np.repeat([1.0, 2.0], 3)
        file["terminals"] = np.isin(np.arange(6), 2)
        file["timeouts"] = np.isin(np.arange(6), 5)
    return path


def test_a_file_of_d4rl(path, capsys, tmp_path):
    assert main(["inspect", str(path), f"--plot={tmp_path / 'plot.png'}"]) == 0
    said = capsys.readouterr().out
    for line in (
        "format       states: D4RL's HDF5",
        "task         gymnasium:Hopper-v4",
        "transitions  6",
        "episodes     2 of 3 transitions, 1 of them end for good",
        "observations 11 numbers, from 0 to 64, 1 of them never change",
        "actions      3 numbers from -0.500 to 1.000",
        "terminals    1 (16.67 %)",
        "score        0.8 on average (-20.2723 counts as 0, 3234.3 as 100)",
        "faults       none",
    ):
        assert line in said
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_what_the_loader_refuses_is_a_fault(path):
    with h5py.File(path, "r+") as file:
        file["rewards"][3] = np.nan
    found = inspect_path(path)
    assert len(found.faults) == 1
    assert "rewards that are not finite in 1 rows" in found.faults[0]


def test_arrays_of_d4rls_names_in_an_npz(path, tmp_path):
    with h5py.File(path) as file:
        arrays = {key: file[key][()] for key in file if key != "next_observations"}
    np.savez(tmp_path / "mine.npz", **arrays)
    found = inspect_path(tmp_path / "mine.npz")
    assert not found.faults
    assert dict(found.lines)["transitions"] == "5"
    assert found.values.tolist() == [3, 4]


def test_a_store_of_them_counts_its_episodes(path, tmp_path):
    store = load_states(path).write(tmp_path / "store")
    lines = dict(inspect_path(store.path).lines)
    assert lines["episodes"] == "2, numbered by the condition episode"
    assert lines["task"] == "gymnasium:Hopper-v4"


def test_a_folder_of_minari(tmp_path, monkeypatch):
    gymnasium = pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")
    minari = pytest.importorskip("minari", reason="the extra `minari` is not installed")
    pytest.importorskip("jax", reason="minari's DataCollector needs it")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gymnasium.make("Hopper-v5", max_episode_steps=4))
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.zeros(3, np.float32))
    with pytest.warns(UserWarning, match="code_permalink"):
        env.create_dataset("hopper-v0")
    lines = dict(inspect_path(tmp_path / "hopper-v0").lines)
    assert lines["episodes"] == "1 of 4 transitions, 0 of them end for good"
    assert lines["task"] == "gymnasium:Hopper-v5"
