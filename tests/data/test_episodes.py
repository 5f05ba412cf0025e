"""The dataset record."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lightning_synther.data.episodes import Episodes, pad_frames
from lightning_synther.errors import DataError


def make(lengths=(3, 2), pad=None):
    num_rows = sum(lengths)
    frames = np.arange(num_rows * 3 * 16, dtype=np.uint8).reshape(num_rows, 3, 4, 4)
    fields = {
        "action": np.zeros((num_rows, 2), np.float32),
        "reward": np.arange(num_rows, dtype=np.float32),
        "discount": np.ones(num_rows, np.float32),
        "lengths": np.array(lengths),
        "task": "cheetah_run",
    }
    if pad is None:
        return Episodes(frames, **fields)
    return Episodes.from_padded(pad_frames(frames, pad), pad, **fields)


def test_counts_and_returns():
    episodes = make((3, 2))
    assert (episodes.num_episodes, episodes.num_transitions) == (2, 3)
    assert (episodes.action_dim, episodes.image_size) == (2, 4)
    assert episodes.starts.tolist() == [0, 3]
    assert episodes.returns.tolist() == [1 + 2, 4]


def test_frames_are_the_inside_of_padded_ones():
    plain, padded = make(), make(pad=2)
    assert np.array_equal(plain.frames, padded.frames)
    assert np.shares_memory(padded.frames, padded.padded)
    assert padded.image_size == 4


@pytest.mark.parametrize("pad", [0, 1, 3, 4])
def test_padding_replicates_edges(pad):
    frames = np.random.default_rng(0).integers(0, 256, (40, 3, 6, 5), dtype=np.uint8)
    wanted = np.pad(frames, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="edge")
    assert np.array_equal(pad_frames(frames, pad), wanted)


@pytest.mark.parametrize("pad", [None, 2])
def test_the_first_episodes_are_views(pad):
    episodes = make((3, 2, 4), pad)
    first = episodes.first(2)
    assert first.lengths.tolist() == [3, 2]
    assert first.returns.tolist() == episodes.returns[:2].tolist()
    assert np.shares_memory(first.frames, episodes.frames)
    assert (first.padded is None) == (pad is None)
    assert episodes.first(9).num_episodes == 3


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(DataError, match=r"episode lengths add up to 5 rows, .*'reward': 4.*: cut them alike"):
        replace(make(), reward=np.zeros(4, np.float32))


@pytest.mark.parametrize("field", ["action", "reward", "discount", "lengths"])
def test_the_fingerprint_follows_the_content(field):
    episodes = make((3, 2))
    assert episodes.fingerprint() == make((3, 2), pad=2).fingerprint()
    changed = getattr(episodes, field).copy()
    changed[0], changed[-1] = changed[-1] + 1, changed[0] - 1
    if field == "lengths":
        changed = np.array([2, 3])
    assert replace(episodes, **{field: changed}).fingerprint() != episodes.fingerprint()
    assert replace(episodes, task="walker_walk").fingerprint() != episodes.fingerprint()
