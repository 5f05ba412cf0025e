"""Replay memory: what is drawn, and that a file holds all that a checkpoint needs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_synther.errors import ConfigError
from lightning_synther.online.replay import Replay
from lightning_synther.transition import Transition


def counted(start, stop):
    value = torch.arange(start, float(stop))[:, None]
    return Transition(value, value, value, value, value)


def memory(capacity, path=None, num_rows=0):
    return Replay(capacity, observation_dim=1, action_dim=1, path=path, num_rows=num_rows)


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12), in_file=st.booleans())
def test_the_latest_transitions_are_drawn_the_oldest_first(tmp_path_factory, sizes, in_file):
    path = tmp_path_factory.mktemp("replay") / "rank_0.rows" if in_file else None
    replay = memory(5, path, num_rows=sum(sizes))
    for size in sizes:
        replay.add(counted(replay.num_added, replay.num_added + size))
    total = sum(sizes)
    latest = torch.arange(max(0, total - 5), total).float()
    assert (len(replay), replay.num_added) == (min(5, total), total)
    assert torch.equal(replay.rows()[:, 2], latest)
    assert torch.equal(replay.gather(torch.arange(len(replay)))[:, 0], latest)
    drawn = replay.unflatten(replay.draw(300, np.random.default_rng(0)))
    assert set(drawn.reward[:, 0].tolist()) == set(latest.tolist())
    assert torch.equal(drawn.reward, drawn.discount)


def test_rows_not_yet_written_are_never_drawn():
    replay = memory(1000)
    replay.add(Transition(*(torch.ones(3, 1) for _ in range(5))))
    assert replay.draw(200, np.random.default_rng(0)).min() == 1


def test_a_state_of_another_size_is_refused():
    replay, other = memory(5), memory(6)
    with pytest.raises(
        ConfigError, match=r"has \(capacity, column sizes\) \(5, 1, 1, 1, 1, 1\), this run's has \(6,"
    ):
        other.load_state_dict(replay.state_dict())


@pytest.mark.parametrize("added", [3, 5, 13])
def test_a_memory_in_the_process_is_part_of_its_state(added):
    replay, other = memory(5), memory(5)
    for row in range(added):
        replay.add(counted(row, row + 1))
    state = replay.state_dict()
    other.load_state_dict(state)
    assert torch.equal(replay.rows(), other.rows())
    for one in (replay, other):
        one.add(counted(50, 54))
    assert torch.equal(replay.rows(), other.rows())
    assert state["rows"] is not None


def test_a_file_keeps_what_a_checkpoint_needs_whatever_was_added_later(tmp_path):
    path = tmp_path / "replay" / "rank_0.rows"
    replay = memory(4, path, num_rows=20)
    replay.add(counted(0, 4))
    replay.add(counted(4, 7))
    state, rows = replay.state_dict(), replay.rows().clone()
    assert state["rows"] is None
    for start in range(7, 19, 4):
        replay.add(counted(100 + start, 104 + start))
    again = memory(4, path, num_rows=20)
    again.load_state_dict(state)
    assert torch.equal(again.rows(), rows)
    longer = memory(4, path, num_rows=40)  # a training that was made longer
    longer.load_state_dict(state)
    assert torch.equal(longer.rows(), rows)
    longer.add(counted(7, 9))
    assert longer.rows()[:, 0].tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("name", [None, "b.rows"])
def test_a_run_that_goes_on_in_another_folder_takes_the_rows_along(tmp_path, name):
    replay = memory(4, tmp_path / "a.rows", num_rows=20)
    replay.add(counted(0, 4))
    replay.add(counted(4, 7))
    other = memory(4, name and tmp_path / name, num_rows=20)
    other.load_state_dict(replay.state_dict())
    assert torch.equal(replay.rows(), other.rows())


def test_another_file_is_refused(tmp_path):
    replay = memory(4, tmp_path / "a.rows", num_rows=20)
    replay.add(counted(0, 4))
    other = memory(4, tmp_path / "b.rows", num_rows=20)
    (tmp_path / "a.rows").unlink()
    with pytest.raises(ConfigError, match=r"b\.rows does not hold the 4 transitions that the checkpoint"):
        other.load_state_dict(replay.state_dict())


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    from lightning_synther.errors import BackendError

    def full(*_):
        raise OSError(28, "No space left on device")

    replay = memory(4, tmp_path / "a.rows", num_rows=20)
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(BackendError, match=r"the disk is full while writing .*a\.rows"):
        replay.add(counted(0, 1))
