"""Frames of an online run: stacks, windows and returns equal those of the finished episodes."""

import numpy as np
import pytest
import torch

from lightning_synther.data.episodes import Episodes
from lightning_synther.data.replay import PixelReplay
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.online.pixel_replay import OnlinePixelReplay

LENGTHS = (6, 1, 3, 5)  # steps; 1 is an episode that ends at its first step
SIZE, PAD = 8, 2


def rows(length, episode):
    rng = np.random.default_rng(episode)
    frames = rng.integers(0, 256, (length + 1, 3, SIZE, SIZE), dtype=np.uint8)
    action, reward = rng.uniform(-1, 1, (length + 1, 2)).astype(np.float32), rng.random(length + 1)
    discount = np.ones(length + 1, np.float32)
    discount[-1] = episode % 2  # some end for good
    action[0], reward[0], discount[0] = 0, 0, 1
    return frames, action, reward.astype(np.float32), discount


def memory(path=None, capacity=100, n_step=3, num_rows=40):
    return OnlinePixelReplay(capacity, 2, SIZE, 3, n_step, 0.9, PAD, path, num_rows)


def play(replay, lengths=LENGTHS):
    for episode, length in enumerate(lengths):
        frames, action, reward, discount = rows(length, episode)
        replay.add_reset(frames[0])
        for t in range(1, length + 1):
            replay.add(frames[t], action[t], float(reward[t]), float(discount[t]))


def finished(n_step):
    parts = [rows(length, episode) for episode, length in enumerate(LENGTHS)]
    frames, action, reward, discount = (np.concatenate(part) for part in zip(*parts, strict=True))
    lengths = np.array(LENGTHS, np.int64) + 1
    episodes = Episodes(frames, action, reward, discount, lengths)
    return PixelReplay(episodes, frame_stack=3, n_step=n_step, gamma=0.9, pad=PAD)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("in_file", [False, True])
def test_it_draws_what_the_replay_of_finished_episodes_draws(tmp_path, n_step, in_file):
    replay, wanted = memory(tmp_path if in_file else None, n_step=n_step), finished(n_step)
    play(replay)
    np.testing.assert_array_equal(replay.windows(), wanted.rows)
    ours, theirs = (one.sample(64, np.random.default_rng(0)) for one in (replay, wanted))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_only_the_latest_windows_are_drawn():
    replay = memory(capacity=4)
    play(replay)
    np.testing.assert_array_equal(replay.windows(), finished(3).rows[-4:])
    actions = {tuple(row) for row in replay.sample(200, np.random.default_rng(0)).action.tolist()}
    assert actions == {tuple(row) for row in finished(3).action[-4:].tolist()}


@pytest.mark.parametrize("in_file", [False, True])
def test_it_goes_on_where_its_state_was_taken(tmp_path, in_file):
    first, other = (tmp_path / name if in_file else None for name in ("first", "first"))
    replay = memory(first)
    play(replay, LENGTHS[:3])
    frames, action, reward, discount = rows(5, 3)
    replay.add_reset(frames[0])
    replay.add(frames[1], action[1], float(reward[1]), 1.0)
    state = replay.state_dict()
    assert (state["rows"] is None) == in_file
    if in_file:  # added after the checkpoint, by a run that was killed
        replay.add(frames[0], action[0], 7.0, 0.0)
        replay.add_reset(frames[3])
    resumed = memory(other)
    resumed.add_reset(frames[5])  # environments begin an episode before their state is loaded
    if in_file:  # which is the first one again
        memory(other).add_reset(rows(LENGTHS[0], 0)[0][0])
    resumed.load_state_dict(state)
    for t in range(2, 6):
        resumed.add(frames[t], action[t], float(reward[t]), float(discount[t]))
    ours, theirs = (one.sample(64, np.random.default_rng(0)) for one in (resumed, finished(3)))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_what_cannot_be_drawn_or_resumed_is_refused(tmp_path):
    replay = memory(tmp_path / "a")
    play(replay, (1, 2))
    with pytest.raises(DataError, match="no episode had 3 steps so far"):
        replay.sample(4, np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"b does not hold the 5 frames that the checkpoint comes after"):
        memory(tmp_path / "b").load_state_dict(replay.state_dict())
    with pytest.raises(ConfigError, match="resume with the data settings that it was started with"):
        memory(tmp_path / "a", n_step=1).load_state_dict(replay.state_dict())
