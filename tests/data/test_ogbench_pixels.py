"""OGBench's visual data sets as V-D4RL's pixel episodes."""

import numpy as np
import pytest

from lightning_synther.data import ogbench_pixels
from lightning_synther.data.inspection import inspect_path
from lightning_synther.data.minari import convert
from lightning_synther.data.ogbench_pixels import _episodes, to_pixels
from lightning_synther.data.streaming import stream_episodes
from lightning_synther.errors import ConfigError, DataError

NAME = "visual-cube-single-play-singletask-v0"


def slices(last, solved):
    return [(part.start, part.stop) for part in _episodes(np.array(last, bool), np.array(solved, bool))]


def test_episodes_end_with_the_step_that_begins_solved():
    assert slices([0, 0, 0, 1], [0, 0, 0, 0]) == [(0, 4)]
    assert slices([0, 0, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0, 0]) == [(0, 4), (4, 7)]
    assert slices([0, 0, 1, 0, 0, 1], [1, 1, 1, 0, 0, 0]) == [(3, 6)]
    assert slices([0, 0, 0, 1], [0, 0, 1, 0]) == [(0, 4)]


@pytest.fixture
def path(tmp_path):
    """Two trajectories of four rows; frame i shows i, action i is i / 10."""
    path, row = tmp_path / "visual-cube-single-play-v0.npz", np.arange(8)
    frames = np.broadcast_to(row[:, None, None, None], (8, 64, 64, 3)).astype(np.uint8)
    frames[:, 63] = 200  # a frame of one colour is a fault
    ends, qpos = np.isin(row, [3, 7]), np.zeros((8, 21), np.float32)
    np.savez_compressed(
        path, observations=frames, actions=row[:, None].astype(np.float32) / 10, terminals=ends, qpos=qpos
    )
    return path


@pytest.fixture
def _solved_at_two(monkeypatch):
    masks = np.ones(8, np.float32)
    masks[2] = 0
    monkeypatch.setattr(ogbench_pixels, "relabelled", lambda *_: (masks * -1, masks))


@pytest.mark.usefixtures("_solved_at_two")
def test_frames_actions_and_rewards_are_aligned_as_v_d4rls(path, tmp_path):
    folder = to_pixels(path, tmp_path / "out", NAME)
    assert folder == tmp_path / "out/main/ogbench:visual-cube-single-singletask-v0/play/64px"
    first, second = stream_episodes(folder)
    assert first.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(first.action[:, 0], [0, 0, 0.1, 0.2])
    assert first.reward.tolist() == [0, -1, -1, 0]
    assert first.discount.tolist() == [1, 1, 1, 0]
    assert second.frames[:, 0, 0, 0].tolist() == [4, 5, 6, 7]
    assert not inspect_path(folder).faults
    with pytest.raises(ConfigError, match="exists: give another"):
        to_pixels(path, tmp_path / "out", NAME)


@pytest.mark.usefixtures("_solved_at_two")
def test_a_policy_that_is_given_names_the_kind(path, tmp_path):
    folder = convert(str(path), str(tmp_path / "out"), task=NAME, policy="mine", progress=False)
    assert folder == tmp_path / "out/main/ogbench:visual-cube-single-singletask-v0/mine/64px"


def test_a_goal_is_no_reward_and_states_are_no_images(path, tmp_path):
    with pytest.raises(ConfigError, match="as in visual-cube-single-play-singletask-v0"):
        convert(str(path), str(tmp_path / "out"))
    np.savez(
        tmp_path / "states.npz", observations=np.zeros((3, 5)), actions=np.zeros((3, 1)), terminals=np.ones(3)
    )
    with pytest.raises(DataError, match="states are read with load_states"):
        convert(str(tmp_path / "states.npz"), str(tmp_path / "out"), task=NAME)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ogbenchs_own_environment_rewards_them(path, tmp_path):
    pytest.importorskip("ogbench", reason="the extra `ogbench` is not installed")
    folder = convert(str(path), str(tmp_path / "out"), task=NAME, progress=False)
    first, _ = stream_episodes(folder)
    assert first.reward.tolist() == [0, -1, -1, -1]  # the cube lies at the origin, far from its target
