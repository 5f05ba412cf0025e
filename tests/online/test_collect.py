"""Collected datasets: V-D4RL's layout, exactly reproducible, resumable, never over other files."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightning_synther.data.vd4rl import load_vd4rl
from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.errors import BackendError, ConfigError, DataError
from lightning_synther.online import collect as module
from lightning_synther.online import packing, policies
from lightning_synther.online.collect import collect
from lightning_synther.online.policies import load_policy
from lightning_synther.seeding import derive_seed

QUICK = {"task": "cartpole_swingup", "policy": "random", "time_limit": 0.1, "num_workers": 0}


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Two episodes to an HDF5 file."""
    monkeypatch.setattr(packing, "EPISODES_PER_FILE", 2)


def contents(directory):
    """Bytes of every file, hidden ones included."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of an uninterrupted collection of four episodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "EPISODES_PER_FILE", 2)
        return contents(collect(**QUICK, root=str(tmp_path_factory.mktemp("whole")), episodes=4))


def test_files_hold_what_the_environment_showed(tmp_path):
    directory = collect(**QUICK, root=str(tmp_path), episodes=3, seed=4)
    assert directory == tmp_path / "main" / "cartpole_swingup" / "random" / "84px"
    names = ["0_cartpole_swingup_random.hdf5", "1_cartpole_swingup_random.hdf5", "provenance.json"]
    assert sorted(path.name for path in directory.iterdir()) == names
    with h5py.File(directory / names[0]) as file:
        data = {name: file[name][:] for name in file}
    assert set(data) == {"observation", "action", "reward", "discount", "step_type"}
    assert data["observation"].shape == (12, 3, 84, 84)
    assert data["observation"].dtype == np.uint8
    assert data["step_type"].tolist() == [0, 1, 1, 1, 1, 2] * 2
    assert data["discount"].tolist() == [1.0] * 12

    env = ControlEnv(EnvConfig("cartpole_swingup", frame_stack=1, time_limit=0.1))
    policy = load_policy("random", "cartpole_swingup")
    frame = env.reset(derive_seed(4, "collect episode", 1))
    noise = np.random.default_rng(derive_seed(4, "collect action", 1))
    np.testing.assert_array_equal(data["observation"][6], frame)
    assert data["action"][6].tolist() == [0.0]
    assert data["reward"][6] == 0.0
    for row in range(7, 12):
        action = policy.act(env.state()[None], noise)[0]
        step = env.step(action)
        np.testing.assert_array_equal(data["action"][row], action)
        np.testing.assert_array_equal(data["observation"][row], step.observation)
        assert data["reward"][row] == np.float32(step.reward)


def test_64_px_is_one_npz_file_for_each_episode(tmp_path):
    directory = collect(**QUICK, root=str(tmp_path), episodes=2, image_size=64)
    assert directory.name == "64px"
    assert sorted(p.name for p in directory.iterdir()) == ["000000-5.npz", "000001-5.npz", "provenance.json"]
    data = load_vd4rl(directory, image_size=64, cache=False)
    assert data.lengths.tolist() == [6, 6]
    assert data.frames.shape == (12, 3, 64, 64)


def test_any_number_of_workers_writes_the_same_bytes(tmp_path, whole):
    assert contents(collect(**QUICK | {"num_workers": 2}, root=str(tmp_path), episodes=4)) == whole


def test_trained_policy_acts_on_states_and_leaves_its_card(tmp_path):
    directory = collect(
        "cheetah_run", "medium", root=str(tmp_path), episodes=1, time_limit=0.2, num_workers=0
    )
    record = json.loads((directory / "provenance.json").read_text())
    assert record["complete"] is True
    assert record["source"] == "collected"
    assert record["policy_card"]["task"] == "cheetah_run"
    assert len(record["request"]["policy_digest"]) == 64
    assert record["versions"]["mujoco"]
    with h5py.File(directory / "0_cheetah_run_medium.hdf5") as file:
        assert file["action"].shape == (11, 6)
        assert record["files"]["0_cheetah_run_medium.hdf5"] == [pytest.approx(file["reward"][:].sum())]


def test_policy_file_with_a_name_of_its_own(tmp_path):
    shipped = Path(policies.policy_path("medium", "cheetah_run"))
    file = tmp_path / "mine.safetensors"
    shutil.copy(shipped, file)
    options = {"episodes": 1, "time_limit": 0.1, "num_workers": 0}
    mine = collect("cheetah_run", "mine", str(tmp_path), policy_path=str(file), **options)
    assert mine.parent.name == "mine"
    medium = collect("cheetah_run", "medium", str(tmp_path), **options)
    with (
        h5py.File(mine / "0_cheetah_run_mine.hdf5") as a,
        h5py.File(medium / "0_cheetah_run_medium.hdf5") as b,
    ):
        np.testing.assert_array_equal(a["action"][:], b["action"][:])


def interrupt_after(num_calls, monkeypatch):
    """Ctrl-C once ``num_calls`` reports of the workers have come."""
    record_episodes = module.record_episodes

    def interrupted(*args):
        for call, report in enumerate(record_episodes(*args)):
            if call == num_calls:
                raise KeyboardInterrupt
            yield report

    monkeypatch.setattr(module, "record_episodes", interrupted)


@pytest.mark.parametrize(("num_calls", "missing"), [(1, [1, 2, 3]), (3, [2, 3]), (5, [3])])
def test_an_interrupted_collection_goes_on_without_duplicate_or_hole(
    tmp_path, monkeypatch, whole, num_calls, missing
):
    with monkeypatch.context() as patch:
        interrupt_after(num_calls, patch)  # an episode is two reports: its start and its end
        with pytest.raises(KeyboardInterrupt):
            collect(**QUICK, root=str(tmp_path), episodes=4)
    played = []
    record_episodes = module.record_episodes
    monkeypatch.setattr(
        module,
        "record_episodes",
        lambda *args: played.append([job.number for job in args[1]]) or record_episodes(*args),
    )
    directory = collect(**QUICK, root=str(tmp_path), episodes=4)
    assert contents(directory) == whole
    assert played == [missing]


def test_sigkill_leaves_something_to_go_on_from(tmp_path):
    code = (
        "import sys; from lightning_synther.online.collect import collect\n"
        "collect('cartpole_swingup', root=sys.argv[1], episodes=4, time_limit=0.3, num_workers=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")])
    parts = tmp_path / "killed" / "main" / "cartpole_swingup" / "random" / "84px" / ".parts"
    deadline = time.time() + 60
    while not list(parts.glob("*.npz")) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = collect(**QUICK | {"time_limit": 0.3}, root=str(tmp_path / "killed"), episodes=4)
    data = load_vd4rl(resumed, cache=False)
    assert data.lengths.tolist() == [16] * 4
    assert len({frame.tobytes() for frame in data.frames[data.starts]}) == 4, "four different episodes"
    assert not (resumed / ".parts").exists()


def test_more_episodes_extend_a_dataset_and_fewer_reuse_it(tmp_path):
    collect(**QUICK, root=str(tmp_path), episodes=1)
    directory = collect(**QUICK, root=str(tmp_path), episodes=3)
    record = json.loads((directory / "provenance.json").read_text())
    assert [len(returns) for returns in record["files"].values()] == [1, 2]
    before = contents(directory)
    assert collect(**QUICK, root=str(tmp_path), episodes=2) == directory
    assert contents(directory) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"was collected with seed=0, not 1: give another root, or overwrite"),
        ({"time_limit": 0.2}, r"was collected with time_limit=0.1, not 0.2"),
        ({"action_repeat": 4}, r"was collected with action_repeat=2, not 4"),
    ],
)
def test_another_request_does_not_touch_the_folder(tmp_path, change, message):
    directory = collect(**QUICK, root=str(tmp_path), episodes=1)
    before = contents(directory)
    with pytest.raises(ConfigError, match=message):
        collect(**QUICK | change, root=str(tmp_path), episodes=1)
    assert contents(directory) == before


def test_foreign_files_are_not_touched(tmp_path):
    directory = tmp_path / "main" / "cartpole_swingup" / "random" / "84px"
    directory.mkdir(parents=True)
    (directory / "0.hdf5").write_text("published")
    with pytest.raises(ConfigError, match=r"84px holds files that were not collected here \(0.hdf5\)"):
        collect(**QUICK, root=str(tmp_path), episodes=1)
    assert contents(directory) == {"0.hdf5": b"published"}


def test_foreign_or_damaged_record(tmp_path):
    directory = collect(**QUICK, root=str(tmp_path), episodes=1)
    (directory / "provenance.json").write_text('{"source": "down')
    with pytest.raises(DataError, match=r"provenance.json is not the record of a collection"):
        collect(**QUICK, root=str(tmp_path), episodes=1)


def test_a_file_that_has_gone_is_named(tmp_path):
    directory = collect(**QUICK, root=str(tmp_path), episodes=1)
    (directory / "0_cartpole_swingup_random.hdf5").unlink()
    with pytest.raises(DataError, match=r"0_cartpole_swingup_random.hdf5 has gone"):
        collect(**QUICK, root=str(tmp_path), episodes=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "cartpole_jump"}, "no task 'cartpole_jump': did you mean"),
        ({"policy": "genius"}, "no policy 'genius' for cartpole_swingup"),
        ({"policy": "../random"}, "cannot name a folder"),
        ({"episodes": 0}, "episodes is 0"),
        ({"transitions": 5}, "episodes is 1 and transitions is 5: give one of them"),
        ({"episodes": None, "transitions": 0}, "transitions is 0"),
        ({"policy": "medium_replay"}, r"make one with .*--data\.init_args\.record=DIR.* --replay_path=DIR"),
        ({"policy": "x", "policy_path": "a.safetensors", "replay_path": "b"}, "give one of them"),
        (
            {"task": "lqr_lqr_2_1", "time_limit": None},
            "an episode of lqr_lqr_2_1 may never end: give time_limit",
        ),
        ({"num_workers": -1}, "num_workers is -1"),
        (
            {"task": "cheetah_run", "policy": "medium", "action_repeat": 4},
            "trained with action_repeat 2, not 4",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message) as info:
        collect(**{**QUICK, "root": str(tmp_path), "episodes": 1, **change})
    assert "\n" not in str(info.value)
    assert not list(tmp_path.rglob("*.hdf5"))


@pytest.mark.usefixtures("nothing_ships")
def test_both_halves_are_missed_by_name(tmp_path):
    message = "takes its policies medium and expert, and medium and expert are missing"
    with pytest.raises(ConfigError, match=message):
        collect(**{**QUICK, "policy": "medium_expert"}, root=str(tmp_path), episodes=1)


def test_policy_of_another_task(tmp_path):
    file = str(policies.policy_path("medium", "cheetah_run"))
    with pytest.raises(ConfigError, match="was trained on cheetah_run, not on walker_walk"):
        collect("walker_walk", "medium", str(tmp_path), episodes=1, policy_path=file)


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_full_disk_is_one_sentence_and_the_collection_can_go_on(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # the kernel refuses what is written beyond
    try:
        with pytest.raises(BackendError, match=r"cannot write to .*: make room or give another root") as info:
            collect(**QUICK | {"num_workers": 1}, root=str(tmp_path), episodes=2)
        assert "\n" not in str(info.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    directory = collect(**QUICK, root=str(tmp_path), episodes=2)
    with h5py.File(directory / "0_cartpole_swingup_random.hdf5") as file:
        assert len(file["observation"]) == 12
