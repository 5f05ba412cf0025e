"""Minari datasets: a round trip keeps every bit, and the alignment is Minari's own."""

import h5py
import numpy as np
import pytest

from lightning_synther.__main__ import main
from lightning_synther.data.inspection import inspect_path
from lightning_synther.data.minari import convert, from_episode, to_buffer
from lightning_synther.data.streaming import stream_episodes
from lightning_synther.data.vd4rl import Hdf5Writer, NpzWriter, dataset_dir, load_vd4rl
from lightning_synther.data.writers import Episode
from lightning_synther.errors import ConfigError, DataError

minari = pytest.importorskip("minari", reason="the extra `minari` is not installed")
EpisodeBuffer = pytest.importorskip("minari.data_collector").EpisodeBuffer
LENGTHS = (6, 4, 9)


def make_episode(length, size=84, seed=0, ends=False):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, 3, size, size), dtype=np.uint8)
    action = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    reward, discount = rng.normal(size=length).astype(np.float32), np.ones(length, np.float32)
    action[0], reward[0] = 0, 0
    discount[-1] = 0 if ends else 1
    return Episode(frames, action, reward, discount)


@pytest.fixture(params=[84, 64])
def dataset(request, tmp_path):
    """Folder and episodes of a dataset; the second one ends for good."""
    size = request.param
    episodes = [make_episode(length, size, seed=i, ends=i == 1) for i, length in enumerate(LENGTHS)]
    folder = dataset_dir(tmp_path / "data", "walker_walk", "medium", size)
    if size == 64:
        writer = NpzWriter(folder)
        for episode in episodes:
            writer.append(*episode)
    else:
        for number, part in enumerate((episodes[:2], episodes[2:])):
            with Hdf5Writer(folder / f"{number}.hdf5") as hdf5:
                for episode in part:
                    hdf5.append(*episode)
    return folder, episodes


def assert_same(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_streaming_gives_every_episode(dataset):
    folder, episodes = dataset
    for found, wanted in zip(stream_episodes(folder), episodes, strict=True):
        assert_same(found, wanted)


def test_a_round_trip_keeps_every_bit(dataset, tmp_path):
    folder, _ = dataset
    there = convert(str(folder), str(tmp_path / "minari"), progress=False)
    assert there == tmp_path / "minari" / "vd4rl" / "walker_walk" / "medium-v0"
    back = convert(str(there), str(tmp_path / "back"), progress=False)
    assert back == dataset_dir(tmp_path / "back", "walker_walk", "medium", int(folder.name[:2]))
    size = int(folder.name[:2])
    first, second = (load_vd4rl(path, image_size=size, cache=False) for path in (folder, back))
    assert_same(
        [getattr(second, name) for name in ("frames", "action", "reward", "discount", "lengths")],
        [getattr(first, name) for name in ("frames", "action", "reward", "discount", "lengths")],
    )
    assert inspect_path(back).faults == []


def test_a_relative_destination(dataset, tmp_path, monkeypatch):
    folder, _ = dataset
    monkeypatch.chdir(tmp_path)
    source = str(folder.relative_to(tmp_path))
    there = convert(source, "out/minari", progress=False)
    assert there == tmp_path / "out" / "minari" / "vd4rl" / "walker_walk" / "medium-v0"
    back = convert(str(there.relative_to(tmp_path)), "back", progress=False)
    assert back == dataset_dir(tmp_path / "back", "walker_walk", "medium", int(folder.name[:2]))
    assert [len(episode.reward) for episode in stream_episodes(back)] == list(LENGTHS)


def test_minari_itself_loads_it_with_its_own_alignment(dataset, tmp_path, monkeypatch):
    folder, episodes = dataset
    convert(str(folder), str(tmp_path / "minari"), progress=False)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    loaded = minari.load_dataset("vd4rl/walker_walk/medium-v0")
    assert loaded.total_episodes == 3
    assert loaded.total_steps == sum(LENGTHS) - 3
    for found, (frames, action, reward, _) in zip(loaded.iterate_episodes(), episodes, strict=True):
        assert loaded.observation_space.contains(found.observations[0])
        assert loaded.action_space.contains(found.actions[0])
        for t in range(len(reward) - 1):  # Minari: step t leads from observation t to t + 1
            np.testing.assert_array_equal(found.observations[t + 1], frames[t + 1].transpose(1, 2, 0))
            np.testing.assert_array_equal(found.actions[t], action[t + 1])
            assert found.rewards[t] == reward[t + 1]
        assert found.terminations.tolist() == [False] * (len(reward) - 2) + [found.id == 1]
        assert found.truncations.tolist() == [False] * (len(reward) - 2) + [found.id != 1]


def test_a_foreign_minari_dataset(tmp_path):
    """Without our infos, with a dict of observations and images of (H, W, 3)."""
    buffer = to_buffer(make_episode(5, seed=3, ends=True))
    states = np.zeros((5, 7), np.float32)
    dictionary = {"pixels": buffer.observations, "state": states}
    foreign = EpisodeBuffer(
        observations=dictionary,
        actions=buffer.actions,
        rewards=buffer.rewards,
        terminations=buffer.terminations,
        truncations=buffer.truncations,
    )
    assert_same(from_episode(foreign, "x"), make_episode(5, seed=3, ends=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": np.zeros((5, 7))}, r"x has observations of float64 \(7,\): one RGB image of uint8"),
        ({"observations": np.zeros((5, 8, 9, 3), np.uint8)}, "x has images of 8x9 pixels"),
        ({"actions": np.full((4, 2), 2.0)}, r"x has actions up to 2: rescale them to \[-1, 1\] first"),
        ({"actions": np.zeros((5, 2))}, r"x has 5 observations and actions \(5, 2\): it is no whole episode"),
    ],
)
def test_what_is_no_episode_of_images(change, message):
    buffer = to_buffer(make_episode(5))
    fields = {name: getattr(buffer, name) for name in ("observations", "actions", "rewards", "terminations")}
    with pytest.raises(DataError, match=message):
        from_episode(EpisodeBuffer(**fields | change), "x")


def test_mistakes_are_one_sentence_and_leave_nothing(dataset, tmp_path, capsys):
    folder, _ = dataset
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    file = next(path for path in folder.iterdir() if path.suffix in (".hdf5", ".npz"))
    with pytest.raises(ConfigError, match="give --task and --policy"):
        convert(str(file), str(tmp_path / "out"), progress=False)
    there = convert(str(file), str(tmp_path / "out"), "walker_walk", "part", progress=False)
    with pytest.raises(ConfigError, match="part-v0 exists: give another destination"):
        convert(str(file), str(tmp_path / "out"), "walker_walk", "part", progress=False)
    with h5py.File(there / "data" / "main_data.hdf5", "r+") as content:
        del content["episode_0"]["rewards"]
    with pytest.raises(DataError, match="cannot be read by Minari"):
        convert(str(there), str(tmp_path / "back"), progress=False)
    assert not (tmp_path / "back").exists()
