"""Index arithmetic: known answers, and no window or stack that leaves its episode."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_synther.data.windows import n_step_returns, stack_rows, valid_rows

episode_lengths = st.lists(st.integers(2, 12), min_size=1, max_size=8)


def owners(lengths):
    return np.repeat(np.arange(len(lengths)), lengths)


def test_rows_of_two_short_episodes():
    assert valid_rows([4, 3], 1).tolist() == [1, 2, 3, 5, 6]
    assert valid_rows([4, 3], 2).tolist() == [1, 2, 5]
    assert valid_rows([4, 3], 3).tolist() == [1]
    assert valid_rows([4, 3], 4).tolist() == []
    assert valid_rows([4, 3], 1, episodes=[1, 0]).tolist() == [5, 6, 1, 2, 3]


def test_a_stack_repeats_the_first_frame():
    assert stack_rows([0, 1, 3, 4, 6], [4, 3], 3).tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [1, 2, 3],
        [4, 4, 4],
        [4, 5, 6],
    ]


def test_returns_by_hand():
    reward = np.array([0, 1, 2, 4], np.float32)
    discount = np.array([1, 1, 0.5, 0], np.float32)
    returns, discounts = n_step_returns([1, 2], reward, discount, n_step=2, gamma=0.5)
    assert returns.tolist() == [1 + 0.5 * 2, 2 + 0.5 * 4]
    assert discounts.tolist() == [0.25 * 0.5, 0.0]


@settings(deadline=None)
@given(episode_lengths, st.integers(1, 14))
def test_windows_stay_in_their_episode_and_none_is_missing(lengths, n_step):
    rows = valid_rows(lengths, n_step)
    owner = owners(lengths)
    assert len(rows) == sum(max(length - n_step, 0) for length in lengths)
    assert len(np.unique(rows)) == len(rows)
    if len(rows):
        assert rows.max() + n_step - 1 < sum(lengths)
        assert (owner[rows - 1] == owner[rows + n_step - 1]).all()


@settings(deadline=None)
@given(episode_lengths, st.integers(1, 5))
def test_stacks_stay_in_their_episode(lengths, frame_stack):
    rows = np.arange(sum(lengths))
    stacks = stack_rows(rows, lengths, frame_stack)
    owner = owners(lengths)
    assert stacks.shape == (len(rows), frame_stack)
    assert (stacks[:, -1] == rows).all()
    assert (owner[stacks] == owner[rows, None]).all()
    step = np.diff(stacks, axis=1)
    assert ((step == 0) | (step == 1)).all()


@settings(deadline=None)
@given(episode_lengths, st.integers(1, 14), st.data())
def test_a_subset_has_the_rows_of_its_episodes_alone(lengths, n_step, data):
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), unique=True))
    rows = valid_rows(lengths, n_step, chosen)
    everything = valid_rows(lengths, n_step)
    assert sorted(rows) == [row for row in everything if owners(lengths)[row] in chosen]
