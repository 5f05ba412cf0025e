"""Reading and writing V-D4RL files: round trips, the cache, and every way in which a file can be wrong."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from lightning_synther.data import frame_cache
from lightning_synther.data.vd4rl import Hdf5Writer, NpzWriter, dataset_dir, list_files, load_vd4rl
from lightning_synther.errors import ConfigError, DataError

ACTION_DIM = 3
COLUMNS = ("action", "reward", "discount", "lengths")


def make_episode(length, size=84, seed=0):
    """Frames, action, reward, discount as V-D4RL stores them."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.integers(0, 256, (length, 3, 1, size), dtype=np.uint8), size, axis=2)
    action = rng.uniform(-1, 1, (length, ACTION_DIM)).astype(np.float32)
    reward = rng.uniform(size=length).astype(np.float32)
    discount = np.ones(length, np.float32)
    action[0], reward[0], discount[-1] = 0, 0, 0
    return frames, action, reward, discount


def joined(episodes):
    frames, action, reward, discount = (np.concatenate(column) for column in zip(*episodes, strict=True))
    return {"frames": frames, "action": action, "reward": reward, "discount": discount}


def assert_holds(loaded, episodes):
    for key, wanted in joined(episodes).items():
        assert np.array_equal(getattr(loaded, key), wanted), key
    assert loaded.lengths.tolist() == [len(episode[0]) for episode in episodes]


def write_official(path, episodes, step_dtype=np.int64, **create):
    """As h5py writes by default: auto-chunked gzip."""
    step_type = np.concatenate([[0] + [1] * (len(e[0]) - 2) + [2] for e in episodes]).astype(step_dtype)
    arrays = joined(episodes)
    with h5py.File(path, "w") as file:
        file.create_dataset("observation", data=arrays.pop("frames"), **({"compression": "gzip"} | create))
        for key, values in {**arrays, "step_type": step_type}.items():
            file.create_dataset(key, data=values, compression="gzip")


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    return tmp_path / "user_cache" / "lightning_synther"


@pytest.fixture
def folder(tmp_path):
    path = dataset_dir(tmp_path / "data", "cheetah_run", "medium", 84)
    path.mkdir(parents=True)
    return path


def test_official_layout():
    assert dataset_dir("x", "walker_walk", "expert", 64).parts == (
        "x",
        "main",
        "walker_walk",
        "expert",
        "64px",
    )


# Reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("lengths", [(2,), (5, 2, 9), (70, 501, 30)])
def test_hdf5_round_trip(folder, lengths, cache):
    episodes = [make_episode(length, seed=length) for length in lengths]
    with Hdf5Writer(folder / "0.hdf5") as writer:
        for episode in episodes:
            writer.append(*episode)
    for _ in range(2):
        loaded = load_vd4rl(folder, task="cheetah_run", cache=cache)
        assert_holds(loaded, episodes)
        assert loaded.task == "cheetah_run"


@pytest.mark.parametrize("cache", [True, False])
def test_npz_round_trip(tmp_path, cache):
    episodes = [make_episode(length, 64, length) for length in (5, 2, 9)]
    writer = NpzWriter(tmp_path)
    paths = [writer.append(*episode) for episode in episodes]
    assert [path.name for path in paths] == ["000000-4.npz", "000001-1.npz", "000002-8.npz"]
    with np.load(paths[0]) as file:
        assert file["image"].shape == (5, 64, 64, 3)
        assert file["is_last"].tolist() == [False] * 4 + [True]
    assert_holds(load_vd4rl(tmp_path, image_size=64, cache=cache), episodes)


@pytest.mark.parametrize(
    "create",
    [
        {},
        {"chunks": (7, 2, 10, 11)},
        {"chunks": (541, 3, 84, 84)},
        {"compression": None},
        {"compression": "lzf"},
        {"shuffle": True},
        {"compression": None, "chunks": (8, 3, 84, 84)},
    ],
    ids=str,
)
@pytest.mark.parametrize("step_dtype", [np.int64, np.float64])
def test_any_chunks_and_compression(folder, create, step_dtype):
    episodes = [make_episode(length, seed=length) for length in (40, 501)]
    write_official(folder / "shard_1_reward_473.hdf5", episodes, step_dtype, **create)
    assert_holds(load_vd4rl(folder, num_threads=2), episodes)


def test_files_are_read_in_natural_order(folder):
    names = ["shard_2_reward_9", "shard_10_reward_4", "1_medium", "0_medium", "10_medium"]
    for name in [*(f"{name}.hdf5" for name in names), ".3.hdf5", "notes.txt", "4.hdf5.partial"]:
        (folder / name).touch()
    assert [path.name for path in list_files(folder)] == [
        "0_medium.hdf5",
        "1_medium.hdf5",
        "10_medium.hdf5",
        "shard_2_reward_9.hdf5",
        "shard_10_reward_4.hdf5",
    ]


def test_what_a_reset_row_holds_does_not_matter(folder):
    frames, action, reward, discount = make_episode(4)
    dirty = action.copy(), reward.copy(), discount.copy()
    for column in dirty:
        column[0] = np.nan
    write_official(folder / "0.hdf5", [(frames, *dirty)])
    loaded = load_vd4rl(folder, cache=False)
    assert (loaded.action[0] == 0).all()
    assert (loaded.reward[0], loaded.discount[0]) == (0, 1)
    assert np.array_equal(loaded.reward[1:], reward[1:])


def test_columns_of_one_number_may_have_one_or_two_dimensions(good):
    wanted = load_vd4rl(good.parent, cache=False)
    corrupt(good, reward=wanted.reward[:, None], action=wanted.action[:, 0])
    found = load_vd4rl(good.parent, cache=False)
    assert np.array_equal(found.reward, wanted.reward)
    assert np.array_equal(found.action, wanted.action[:, :1])


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        with Hdf5Writer(tmp_path / name) as writer:
            for seed in range(3):
                writer.append(*make_episode(50, seed=seed))
        time.sleep(1.1 if name == "a" else 0)  # a time stamp in the file would differ now
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_aborted_writer_leaves_nothing(folder):
    def fail():
        with Hdf5Writer(folder / "0.hdf5") as writer:
            writer.append(*make_episode(5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(folder.iterdir()) == []


def test_a_writer_refuses_what_is_no_episode(folder):
    frames, action, reward, discount = make_episode(5)
    with Hdf5Writer(folder / "0.hdf5") as writer:
        with pytest.raises(
            DataError, match=r"arrays of one length T >= 2 .*'reward': \(4,\).*: cut them alike"
        ):
            writer.append(frames, action, reward[:4], discount)
        with pytest.raises(DataError, match=r"frames are float64 .*: give uint8 \(T, 3, height, width\)"):
            writer.append(frames / 255, action, reward, discount)
        writer.append(frames, action, reward, discount)
        with pytest.raises(DataError, match="write one image size to a file"):
            writer.append(*make_episode(5, size=64))


# The cache ----------------------------------------------------------------------------------------


def write_files(folder, *files):
    """One HDF5 file for each sequence of lengths."""
    for number, lengths in enumerate(files):
        with Hdf5Writer(folder / f"{number}.hdf5") as writer:
            for length in lengths:
                writer.append(*make_episode(length, seed=number * 10 + length))


def entries(folder):
    return sorted(path.parent.name for path in (folder / ".cache").glob("*/entry.json"))


def forbid_reading(monkeypatch):
    def fail(*_):
        raise AssertionError("a file was read in spite of the cache")

    monkeypatch.setattr("lightning_synther.data.vd4rl._READERS", {".hdf5": fail, ".npz": fail})


def test_the_second_load_maps_the_cache(folder, monkeypatch):
    write_files(folder, (5, 6), (7,))
    first = load_vd4rl(folder)
    forbid_reading(monkeypatch)
    second = load_vd4rl(folder)
    assert isinstance(second.padded, np.memmap)
    assert np.array_equal(first.padded, second.padded)
    assert first.fingerprint() == second.fingerprint()
    second.padded[:] = 0  # copy on write: what a program does to its arrays stays in its memory
    assert np.array_equal(load_vd4rl(folder).padded, first.padded)


def test_a_changed_or_added_file_is_noticed_and_the_old_cache_removed(folder):
    write_files(folder, (5,))
    load_vd4rl(folder)
    old = entries(folder)
    write_files(folder, (5,), (7,))
    assert load_vd4rl(folder).lengths.tolist() == [5, 7]
    assert len(entries(folder)) == 1
    assert entries(folder) != old
    os.utime(folder / "0.hdf5", ns=(1, 1))
    assert load_vd4rl(folder).lengths.tolist() == [5, 7]


def test_a_number_of_episodes_touches_no_more_files_than_it_needs(folder, monkeypatch):
    write_files(folder, (5, 6), (7,))
    (folder / "2.hdf5").write_text("not HDF5 at all")
    assert load_vd4rl(folder, max_episodes=1).lengths.tolist() == [5]
    assert load_vd4rl(folder, max_episodes=3).lengths.tolist() == [5, 6, 7]
    with monkeypatch.context() as patch:
        forbid_reading(patch)
        assert load_vd4rl(folder, max_episodes=2).lengths.tolist() == [5, 6]
    for request in (4, None):
        with pytest.raises(DataError, match=r"2\.hdf5 cannot be read as HDF5"):
            load_vd4rl(folder, max_episodes=request)
    (folder / "2.hdf5").unlink()
    assert load_vd4rl(folder, max_episodes=9).lengths.tolist() == [5, 6, 7]


@pytest.mark.parametrize("number", [0, -1])
def test_fewer_than_one_episode_is_refused(folder, number):
    write_files(folder, (5,))
    with pytest.raises(ConfigError, match=r"max_episodes is .*: give 1 or more, or None for all"):
        load_vd4rl(folder, max_episodes=number)


def test_processes_that_start_together_share_the_work(folder):
    write_files(folder, (50, 60))
    code = (
        "import sys; from lightning_synther.data.vd4rl import load_vd4rl; "
        "print(load_vd4rl(sys.argv[1]).frames.sum())"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) for _ in range(3)
    ]
    printed = {process.communicate()[0] for process in running}
    assert printed == {b"%d\n" % load_vd4rl(folder, cache=False).frames.sum()}
    assert len(entries(folder)) == 1


def test_a_damaged_cache_is_made_again(folder, caplog):
    write_files(folder, (5,))
    first = np.array(load_vd4rl(folder).frames)
    padded = folder / ".cache" / entries(folder)[0] / "padded.npy"
    padded.write_bytes(padded.read_bytes()[:1000])
    assert np.array_equal(load_vd4rl(folder).frames, first)
    assert "is damaged" in caplog.text
    assert isinstance(load_vd4rl(folder).padded, np.memmap)


def test_a_full_disk_leaves_nothing_and_the_frames_are_in_memory(folder, caplog, monkeypatch, user_cache):
    write_files(folder, (5, 600))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frame_cache.os, "pwrite", full)
    loaded = load_vd4rl(folder)
    assert loaded.lengths.tolist() == [5, 600]
    assert not isinstance(loaded.padded, np.memmap)
    assert "No space left on device" in caplog.text
    assert "the frames are read into memory" in caplog.text
    left = [path.name for place in (folder / ".cache", user_cache) for path in place.rglob("*.npy")]
    assert left == []


def test_too_little_space_is_seen_before_writing(folder, caplog, monkeypatch):
    write_files(folder, (50,))
    monkeypatch.setattr(frame_cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    assert not isinstance(load_vd4rl(folder).padded, np.memmap)
    assert "1 MB are needed" in caplog.text


def test_what_a_killed_run_left_is_cleared(folder):
    write_files(folder, (5,))
    leftover = folder / ".cache" / "0123.partial"
    leftover.mkdir(parents=True)
    (leftover / "padded.npy").write_text("half")
    load_vd4rl(folder)
    assert not leftover.exists()


def test_a_folder_that_cannot_be_written_is_cached_elsewhere(folder, monkeypatch, user_cache, caplog):
    write_files(folder, (5,))
    (folder / ".cache").touch()  # a file where the folder should be; root ignores permissions
    loaded = load_vd4rl(folder)
    assert isinstance(loaded.padded, np.memmap)
    assert len(list(user_cache.glob("*/*/padded.npy"))) == 1
    forbid_reading(monkeypatch)
    assert load_vd4rl(folder).lengths.tolist() == [5]


# Wrong input --------------------------------------------------------------------------------------


def corrupt(path, **changes):
    """Replace datasets of an HDF5 file; None removes one."""
    with h5py.File(path, "r+") as file:
        for key, values in changes.items():
            del file[key]
            if values is not None:
                file[key] = values


@pytest.fixture
def good(folder):
    write_official(folder / "0.hdf5", [make_episode(40), make_episode(30)])
    return folder / "0.hdf5"


def refused(folder, match, **options):
    for cache in (False, True):
        with pytest.raises(DataError, match=match) as caught:
            load_vd4rl(folder, cache=cache, **options)
        assert "\n" not in str(caught.value)
    assert not list(folder.rglob("*.npy"))
    assert not list(folder.rglob("*.partial"))


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder: give one that holds V-D4RL files"):
        load_vd4rl(tmp_path / "nowhere")


def test_empty_folder(folder):
    refused(folder, r"84px holds no \.hdf5 or \.npz files: give another folder, or download or collect")


def test_both_formats(good):
    (good.parent / "1.npz").touch()
    refused(good.parent, r"holds both \.hdf5 and \.npz files: move one kind")


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_truncated_hdf5(good, kept):
    content = good.read_bytes()
    good.write_bytes(content[: int(kept * len(content))])
    refused(
        good.parent, r"0\.hdf5 cannot be read as HDF5 \(.*\): it is cut off or damaged, get or make it again"
    )


def test_damaged_frames(good):
    content = bytearray(good.read_bytes())
    with h5py.File(good) as file:
        info = file["observation"].id.get_chunk_info(3)
    content[info.byte_offset + 10 : info.byte_offset + 60] = bytes(50)
    good.write_bytes(content)
    refused(good.parent, r"0\.hdf5 cannot be read as HDF5")


def test_foreign_hdf5(good):
    with h5py.File(good, "w") as file:
        file["observations"] = np.zeros((3, 17))
    refused(good.parent, r"0\.hdf5 lacks observation, .*it has observations\): it is not a V-D4RL file")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"reward": None}, r"lacks reward \(it has"),
        ({"observation": np.zeros((70, 3, 84, 84), np.float32)}, "observation is float32 of shape"),
        (
            {"observation": np.zeros((70, 84, 84, 3), np.uint8)},
            r"observation is uint8 of shape \(70, 84, 84, 3\)",
        ),
        ({"reward": np.zeros(69)}, "arrays of unequal length {.*'reward': 69.*}: it is damaged"),
        ({"reward": np.zeros((70, 2))}, r"reward has shape \(70, 2\)"),
        ({"action": np.zeros((70, 3, 1))}, r"action has shape \(70, 3, 1\)"),
        ({"reward": np.full(70, np.nan)}, "reward is not finite in row 1"),
        ({"reward": np.array([b"x"] * 70)}, "cannot be read as HDF5"),
        ({"step_type": np.ones(70)}, "step_type of row 0 is 1, no episode starts there: the file is cut off"),
        ({"step_type": np.array([0] + 69 * [1])}, "step_type of the last row is 1, no episode ends there"),
        ({"step_type": np.array([0] + 68 * [3] + [2])}, "values other than 0, 1 and 2"),
        ({"step_type": np.array([0] + 30 * [1] + [0] + 37 * [1] + [2])}, "alone between rows 30 and 31"),
        ({"step_type": np.array([0] + 30 * [1] + [2] + 37 * [1] + [2])}, "alone between rows 31 and 32"),
    ],
)
def test_wrong_content(good, changes, match):
    corrupt(good, **changes)
    refused(good.parent, rf"0\.hdf5.*{match}")


def test_another_image_size(good):
    refused(
        good.parent,
        r"frames of 84x84 pixels, 64x64 were asked for: set image_size to 84, or give the folder 64px",
        image_size=64,
    )


def test_files_of_two_tasks(good):
    frames, action, reward, discount = make_episode(9)
    write_official(good.with_name("1.hdf5"), [(frames, action[:, :2], reward, discount)])
    refused(
        good.parent, r"1\.hdf5 has actions of 2 numbers, .*0\.hdf5 of 3: keep one task's files in a folder"
    )


@pytest.fixture
def npz(tmp_path):
    folder = tmp_path / "npz"
    frames, action, reward, discount = make_episode(9, 64)
    columns = {
        "image": frames.transpose(0, 2, 3, 1),
        "action": action,
        "reward": reward,
        "discount": discount,
    }

    def write(**changes):
        folder.mkdir(exist_ok=True)
        kept = {key: values for key, values in {**columns, **changes}.items() if values is not None}
        np.savez_compressed(folder / "20220116T211645-bde85df8-500.npz", **kept)
        return folder

    return write


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"reward": np.array([None] * 9)},
            r"cannot be read as NPZ \(Object arrays.*never loaded; get or make it",
        ),
        ({"image": np.array([None] * 9)}, "cannot be read as NPZ"),
        ({"discount": None}, r"lacks discount \(it has image, action, reward\)"),
        ({"reward": np.zeros(8)}, "arrays of unequal length"),
        ({"image": np.zeros((8, 64, 64, 3), np.uint8)}, "unequal length: 8 frames, 9 rewards"),
        ({"image": np.zeros((9, 3, 64, 64), np.uint8)}, "it is not a V-D4RL file"),
        ({"image": np.zeros((9, 64), np.uint8)}, "it is not a V-D4RL file"),
        ({"image": np.zeros((9, 84, 84, 3), np.uint8)}, "frames of 84x84 pixels, 64x64 were asked for"),
        ({"reward": np.zeros(())}, "cannot be read as NPZ"),
        (dict.fromkeys(("action", "reward", "discount"), np.zeros((0,))), "holds no episodes"),
        (
            {"action": np.zeros((1, 3)), "reward": np.zeros(1), "discount": np.ones(1)},
            "step_type of the last row is 0, no episode ends there",
        ),
    ],
)
def test_wrong_npz(npz, changes, match):
    refused(npz(**changes), rf"500\.npz.*{match}", image_size=64)


def test_truncated_npz(npz):
    folder = npz()
    path = next(folder.iterdir())
    path.write_bytes(path.read_bytes()[:-500])
    refused(folder, "cannot be read as NPZ .* it is cut off, damaged", image_size=64)


def test_further_npz_keys_are_ignored(npz):
    folder = npz(state=np.zeros((9, 17)), is_first=np.zeros(9, bool))
    assert load_vd4rl(folder, image_size=64).lengths.tolist() == [9]


def test_loading_needs_no_torch():
    code = (
        "import sys, lightning_synther.data.vd4rl, lightning_synther.data.windows; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(autouse=True)
def _warnings_are_seen(caplog):
    caplog.set_level(logging.WARNING)
