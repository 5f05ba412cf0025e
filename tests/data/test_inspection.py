"""`inspect`: what it says of sound data, and that it finds every fault users of V-D4RL met."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_synther.__main__ import main
from lightning_synther.data.faults import step_type_faults, whole_episodes
from lightning_synther.data.inspection import inspect, inspect_path
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.data.vd4rl import Hdf5Writer, NpzWriter, dataset_dir
from lightning_synther.errors import BackendError, ConfigError, DataError
from lightning_synther.transition import TransitionSpec

REWARDS = (0.1, 0.2, 0.4, 0.8)


def make_episode(length, size=84, seed=0, reward=1.0):
    """Noisy frames; every reward but the reset's is ``reward``."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.integers(0, 256, (length, 3, 1, size), dtype=np.uint8), size, axis=2)
    action = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    rewards = np.full(length, reward, np.float32)
    action[0], rewards[0] = 0, 0
    return frames, action, rewards, np.ones(length, np.float32)


@pytest.fixture
def folder(tmp_path):
    """Four episodes of ten steps in two files, returns 1, 2, 4 and 8."""
    path = dataset_dir(tmp_path / "data", "cheetah_run", "medium", 84)
    for number in range(2):
        with Hdf5Writer(path / f"{number}.hdf5") as writer:
            for i in (2 * number, 2 * number + 1):
                writer.append(*make_episode(11, seed=i, reward=REWARDS[i]))
    return path


def change(path, **columns):
    """Replace datasets of an HDF5 file; None removes one."""
    with h5py.File(path, "r+") as file:
        for key, values in columns.items():
            del file[key]
            if values is not None:
                file[key] = values


def column(path, key):
    with h5py.File(path) as file:
        return file[key][:]


def test_a_sound_dataset(folder, capsys):
    assert main(["inspect", str(folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in printed)
    assert lines["format"] == "V-D4RL, 84x84 pixels, 2 files (HDF5)"
    assert lines["task"] == "cheetah_run (by its folder)"
    assert lines["kind"] == "medium (by its folder)"
    assert lines["episodes"] == "4"
    assert lines["transitions"] == "40 (10 each)"
    assert lines["returns"] == "min 1, quartiles 1.75 3 5, max 8, mean 3.75"
    assert lines["actions"].startswith("2 numbers from -0.9")
    assert lines["faults"] == "none"


def test_one_file_and_npz_episodes(folder, tmp_path):
    assert len(inspect_path(folder / "1.hdf5").values) == 2
    writer = NpzWriter(tmp_path / "64px")
    for length in (5, 8):
        path = writer.append(*make_episode(length, 64, seed=length))
    assert dict(inspect_path(path).lines)["transitions"] == "7 (7 each)"
    found = inspect_path(tmp_path / "64px")
    assert found.faults == []
    assert dict(found.lines)["transitions"] == "11 (4 to 7 each)"


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (
            {"reward": np.ones(20)},
            r"unequal length: frames 22, action 22, reward 20, discount 22, step_type 22",
        ),
        ({"reward": None}, r"lacks reward \(it has action, discount, observation, step_type\)"),
        ({"step_type": [0] + [1] * 21}, r"an episode has no end .* \(row 21\)"),
        ({"step_type": [0] + [1] * 10 + [0] + [1] * 9 + [2]}, r"an episode has no end .* \(row 10\)"),
        ({"step_type": [0] + [1] * 9 + [2] + [1] * 10 + [2]}, r"an episode has no start .* \(row 11\)"),
        ({"step_type": [1] * 10 + [2, 0] + [1] * 9 + [2]}, r"the first episode has no start: .* row 0 is 1"),
        ({"step_type": [0] + [1] * 9 + [2, 0] + [7] * 9 + [2]}, r"step_type of row 12 is none of 0, 1 and 2"),
        ({"reward": [0] + [np.nan] * 21}, r"reward is not finite in 20 rows \(row 1\)"),
        ({"action": np.full((22, 2), 1.5)}, r"action leaves \[-1, 1\] in 20 rows \(row 1\)"),
        ({"discount": [1, 1, 0] + [1] * 19}, r"discount is 0 inside an episode in 1 rows \(row 2\)"),
        ({"observation": np.zeros((22, 3, 84, 84), np.uint8)}, r"22 frames are of one colour only \(row 0\)"),
        (
            {"observation": np.zeros((22, 84, 84, 3), np.uint8)},
            r"frames are uint8 of shape \(22, 84, 84, 3\)",
        ),
    ],
)
def test_faults_of_a_file_are_found(folder, columns, fault):
    change(folder / "0.hdf5", **{k: v if v is None else np.array(v) for k, v in columns.items()})
    found = inspect_path(folder).faults
    assert any(re.search(rf"^0\.hdf5: .*{fault}", line) for line in found), found


def test_all_faults_are_listed_and_the_status_is_1(folder, capsys):
    change(folder / "0.hdf5", reward=np.full(22, np.nan), step_type=np.array([0] + [1] * 21))
    content = (folder / "1.hdf5").read_bytes()
    (folder / "1.hdf5").write_bytes(content[: len(content) // 2])
    assert main(["inspect", str(folder)]) == 1
    printed = capsys.readouterr()
    faults = [line for line in printed.out.splitlines() if line.startswith("fault ")]
    assert [line.split()[1] for line in faults] == ["0.hdf5:", "0.hdf5:", "1.hdf5:"]
    assert "cannot be read as HDF5" in faults[2]
    assert printed.err == f"error: {folder} has 3 faults, listed above: get or make it again\n"


def test_damaged_frames_are_found_by_inflating_them(folder):
    path = folder / "0.hdf5"
    with h5py.File(path) as file:
        info = file["observation"].id.get_chunk_info(5)
    content = bytearray(path.read_bytes())
    content[info.byte_offset + 10 : info.byte_offset + 60] = bytes(50)
    path.write_bytes(content)
    assert inspect_path(folder, frames=False).faults == []
    assert "0.hdf5: cannot be read as HDF5" in inspect_path(folder).faults[0]


def test_an_episode_that_is_there_twice(folder):
    (folder / "2.hdf5").write_bytes((folder / "0.hdf5").read_bytes())
    assert inspect_path(folder).faults == [
        "the episode of 2.hdf5, row 0 is there twice (also 0.hdf5, row 0)",
        "the episode of 2.hdf5, row 11 is there twice (also 0.hdf5, row 11)",
    ]


def test_files_of_two_kinds_and_a_wrong_folder_name(folder, tmp_path):
    with Hdf5Writer(folder / "2.hdf5") as writer:
        writer.append(*make_episode(5, 64, seed=9))
    faults = inspect_path(folder).faults
    assert "files with frames of different sizes lie in one folder: [(3, 64, 64), (3, 84, 84)]" in faults
    assert any("the folder is called 84px" in fault for fault in faults)


def test_the_record_of_a_collection_is_compared(folder):
    record = {
        "source": "collected",
        "complete": False,
        "episodes": 6,
        "request": {"task": "cheetah_run", "policy": "medium", "seed": 3},
        "files": {"0.hdf5": [1.0], "1.hdf5": [4.0, 7.0], "2.hdf5": [1.0]},
    }
    (folder / "provenance.json").write_text(json.dumps(record))
    found = inspect_path(folder)
    assert dict(found.lines)["kind"] == "medium (collected, seed 3, unfinished)"
    assert found.faults == [
        "2.hdf5 is in provenance.json, but has gone",
        "0.hdf5 holds 2 whole episodes, provenance.json counts 1",
        "1.hdf5 has other returns than provenance.json",
        "the collection is unfinished, 4 of 6 episodes: run its command again",
    ]


def test_wrong_counts_and_marks_of_an_npz_episode(tmp_path):
    frames, action, reward, discount = make_episode(9, 64)
    path = tmp_path / "20220116T211645-bde85df8-500.npz"
    arrays = {"image": frames.transpose(0, 2, 3, 1), "action": action, "reward": reward, "discount": discount}
    np.savez(path, **arrays, is_first=np.arange(9) == 0, is_last=np.arange(9) == 4)
    assert inspect_path(path).faults == [
        f"{path.name}: has 8 transitions, its name says 500 (V-D4RL's loader counts by the name)",
        f"{path.name}: is_last does not mark the last row and no other",
    ]


def test_shifted_actions_are_hinted_at(folder):
    change(folder / "0.hdf5", action=np.full((22, 2), 0.5, np.float32))
    found = inspect_path(folder)
    assert found.faults == []
    assert "row t holds the action that led to observation t" in found.notes[0]


@pytest.fixture
def store(tmp_path):
    spec = TransitionSpec(observation_dim=2, action_dim=1, discount=0.99, terminal=True)
    rows = np.zeros((5, spec.dim), np.float32)
    rows[:, spec.fields["reward"]] = np.arange(5.0)[:, None]
    rows[3, spec.fields["terminal"]] = 1
    with StoreWriter(tmp_path / "store", spec, 5, seed=4, producer="test", fingerprint="") as writer:
        writer.write(0, rows)
        writer.commit()
    return tmp_path / "store"


def test_a_store_of_transitions(store):
    found = inspect_path(store)
    lines = dict(found.lines)
    assert found.faults == []
    assert lines["transitions"] == "5"
    assert lines["row"] == "7 numbers: observation 2, action 1, reward 1, next_observation 2, terminal 1"
    assert lines["rewards"] == "min 0, quartiles 1 2 3, max 4, mean 2"
    assert lines["terminals"] == "1 (20.00 %)"


def test_faults_of_a_store(store):
    content = bytearray((store / "rows.npy").read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    (store / "rows.npy").write_bytes(content)
    assert inspect_path(store).faults == ["1 rows are not finite (row 4)"]
    (store / "rows.npy").write_bytes(content[:-20])
    assert "rows.npy is truncated" in inspect_path(store).faults[0]


def test_an_npz_of_synthers_layout(tmp_path):
    path = tmp_path / "5m.npz"
    arrays = {
        "observations": np.zeros((4, 3)),
        "actions": np.zeros((4, 1)),
        "rewards": np.array([1.0, 2, 3, np.inf]),
    }
    np.savez(path, **arrays, next_observations=np.zeros((4, 3)), terminals=np.zeros(3))
    found = inspect_path(path)
    assert found.title == "transitions in SynthER's NPZ layout"
    assert len(found.faults) == 2
    assert "unequal length" in found.faults[0]
    assert found.faults[1] == "rewards is not finite in 1 rows (row 3)"


def test_the_picture(folder, store, tmp_path):
    for path in (folder, store):
        assert main(["inspect", str(path), "--plot", str(tmp_path / "sub" / "picture.png")]) == 0
        with Image.open(tmp_path / "sub" / "picture.png") as image:
            assert min(image.size) > 200
    with pytest.raises(ConfigError, match=r"give the name of a \.png file"):
        inspect(str(folder), plot="picture.jpg", progress=False)


def test_a_picture_below_a_file(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match=r"cannot write .*file/p\.png \(.*\): give another --plot"):
        inspect(str(folder), plot=str(tmp_path / "file" / "p.png"), progress=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere", "nowhere does not exist: give a dataset folder"),
        (lambda path: path, "holds no data files itself: give one of the folders below it .*84px"),
        (lambda path: path / "notes.txt", "notes.txt is neither .hdf5 nor .npz"),
    ],
)
def test_nothing_to_inspect(folder, tmp_path, make, message):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=message):
        inspect_path(make(tmp_path))


@given(st.lists(st.integers(2, 9), min_size=1, max_size=6))
def test_sound_step_types_have_no_faults_and_all_their_episodes(lengths):
    step_type = np.concatenate([[0] + [1] * (length - 2) + [2] for length in lengths])
    assert step_type_faults(step_type) == []
    assert [s.stop - s.start for s in whole_episodes(step_type)] == lengths


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_any_step_types_give_separate_whole_episodes(values):
    step_type = np.array(values)
    episodes = whole_episodes(step_type)
    assert all(step_type[s.start] == 0 and step_type[s.stop - 1] == 2 for s in episodes)
    assert all(a.stop <= b.start for a, b in pairwise(episodes))
    covered = sum(s.stop - s.start for s in episodes) == len(values)
    assert covered == (not step_type_faults(step_type))
