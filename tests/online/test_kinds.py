"""V-D4RL's kinds of data: two halves, numbers of transitions, overwriting, and what each mistake is told."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from lightning_synther.data.inspection import inspect_path
from lightning_synther.data.vd4rl import load_vd4rl
from lightning_synther.errors import ConfigError
from lightning_synther.online import collect as module
from lightning_synther.online import packing, policies
from lightning_synther.online.collect import collect
from lightning_synther.online.policies import PolicySpec, save_policy

TASK = "cartpole_swingup"
QUICK = {"time_limit": 0.1, "num_workers": 0, "progress": False}  # episodes of 5 steps


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(packing, "EPISODES_PER_FILE", 2)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package that ships `medium` and `expert` for the task, two networks of one layer."""
    folder = tmp_path / "policies"
    for level, bias in (("medium", -1.0), ("expert", 1.0)):
        spec = PolicySpec(TASK, 2, 5, 1, layer_sizes=[5, 2], log_std_bounds=(-5.0, 2.0))
        layer = (np.zeros((2, 5), np.float32), np.array([bias, 0.0], np.float32))
        save_policy(folder / TASK / f"{level}.safetensors", spec, [layer])
    monkeypatch.setattr(policies, "SHIPPED", folder)
    return folder


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".hdf5", ".npz")}


def test_medium_expert_is_both_halves_as_each_would_be_alone(tmp_path, shipped):
    both = collect(TASK, "medium_expert", str(tmp_path), episodes=7, **QUICK)
    assert sorted(contents(both)) == sorted(
        [f"{i}_{TASK}_{half}.hdf5" for half in ("expert", "medium") for i in range(2)]
    )
    medium = collect(TASK, "medium", str(tmp_path), episodes=4, **QUICK)
    expert = collect(TASK, "expert", str(tmp_path), episodes=3, **QUICK)
    assert contents(both) == contents(medium) | contents(expert)
    record = json.loads((both / "provenance.json").read_text())
    assert record["complete"] is True
    assert set(record["policy_card"]) == {"medium", "expert"}
    assert record["request"]["policy"] == "medium_expert"
    found = inspect_path(both)
    assert found.faults == []
    assert dict(found.lines)["episodes"] == "7"


def test_medium_expert_is_resumed_and_extended_in_both_halves(tmp_path, shipped, monkeypatch):
    whole = contents(collect(TASK, "medium_expert", str(tmp_path / "a"), episodes=8, **QUICK))
    record_episodes = module.record_episodes

    def interrupted(*args):
        for call, report in enumerate(record_episodes(*args)):
            if call == 9:
                raise KeyboardInterrupt
            yield report

    with monkeypatch.context() as patch:
        patch.setattr(module, "record_episodes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(TASK, "medium_expert", str(tmp_path / "b"), episodes=8, **QUICK)
    assert contents(collect(TASK, "medium_expert", str(tmp_path / "b"), episodes=8, **QUICK)) == whole
    collect(TASK, "medium_expert", str(tmp_path / "c"), episodes=4, **QUICK)
    options = QUICK | {"num_workers": 2}
    directory = collect(TASK, "medium_expert", str(tmp_path / "c"), episodes=8, **options)
    assert contents(directory) == whole


def test_medium_expert_at_64_px_has_a_prefix_for_each_half(tmp_path, shipped):
    directory = collect(TASK, "medium_expert", str(tmp_path), episodes=3, image_size=64, **QUICK)
    names = ["expert-000000-5.npz", "medium-000000-5.npz", "medium-000001-5.npz"]
    assert sorted(contents(directory)) == names
    data = load_vd4rl(directory, image_size=64, cache=False)
    assert data.lengths.tolist() == [6, 6, 6]
    assert (data.action[1:6] > 0).all(), "the expert's bias pushes to the right"
    assert (data.action[7:12] < 0).all()


def test_medium_expert_without_the_expert_says_what_there_is(tmp_path, shipped):
    (shipped / TASK / "expert.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"and expert is missing: there are random, medium$"):
        collect(TASK, "medium_expert", str(tmp_path), episodes=2, **QUICK)


@pytest.mark.parametrize(("transitions", "episodes"), [(1, 1), (5, 1), (6, 2), (15, 3)])
def test_transitions_are_rounded_up_to_whole_episodes(tmp_path, transitions, episodes):
    directory = collect(TASK, root=str(tmp_path), transitions=transitions, image_size=64, **QUICK)
    assert len(contents(directory)) == episodes
    before = contents(directory)
    assert collect(TASK, root=str(tmp_path), transitions=transitions, image_size=64, **QUICK) == directory
    assert contents(directory) == before


def test_transitions_of_episodes_that_end_early(tmp_path, monkeypatch):
    limit = module.ControlEnv.max_steps.fget
    monkeypatch.setattr(module.ControlEnv, "max_steps", property(lambda env: 4 * limit(env)))
    directory = collect(TASK, root=str(tmp_path), transitions=18, **QUICK)  # one episode is promised 20 steps
    with h5py.File(directory / f"0_{TASK}_random.hdf5") as file:
        first = len(file["reward"])
    total = sum(load_vd4rl(directory, cache=False).lengths - 1)
    assert (first, total) == (6, 20)
    assert json.loads((directory / "provenance.json").read_text())["complete"] is True


def test_overwrite_replaces_data_files_and_nothing_else(tmp_path):
    directory = collect(TASK, root=str(tmp_path), episodes=3, **QUICK)
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="give another root, or overwrite"):
        collect(TASK, root=str(tmp_path), episodes=1, seed=1, **QUICK)
    assert len(contents(directory)) == 2
    collect(TASK, root=str(tmp_path), episodes=1, seed=1, overwrite=True, **QUICK)
    assert len(contents(directory)) == 1
    assert json.loads((directory / "provenance.json").read_text())["request"]["seed"] == 1
    assert (directory / "notes.txt").read_text() == "mine"
    assert inspect_path(directory).faults == []


def test_overwrite_deletes_nothing_where_the_new_data_cannot_be_made(tmp_path):
    directory = collect(TASK, root=str(tmp_path), episodes=1, **QUICK)
    before = contents(directory)
    with pytest.raises(ConfigError, match="no policy 'genius'"):
        collect(TASK, "genius", str(tmp_path), episodes=1, overwrite=True, **QUICK)
    shutil.copytree(directory, tmp_path / "copy")
    command = [sys.executable, "-m", "lightning_synther", "collect", f"--task={TASK}", f"--root={tmp_path}"]
    done = subprocess.run(
        [*command, "--episodes=1", "--time_limit=0.1", "--overwrite", "--num_workers=1"],
        env=os.environ | {"MUJOCO_GL": "glfw", "DISPLAY": ""},  # a display that is not there
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: dm_control cannot render with MUJOCO_GL=glfw")
    assert "Traceback" not in done.stderr
    assert contents(directory) == before
