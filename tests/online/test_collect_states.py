from __future__ import annotations

import numpy as np
import pytest

from lightning_synther.data.conditions import read_condition
from lightning_synther.data.store import TransitionStore
from lightning_synther.errors import ConfigError
from lightning_synther.online.collect_states import collect_states


def collect(path, **kwargs):
    settings = {"episodes": 3, "time_limit": 0.2, **kwargs}
    return collect_states("cheetah_run", "medium", str(path), **settings)


def test_rows_follow_one_another_within_an_episode(tmp_path):
    store = collect(tmp_path / "store")
    assert TransitionStore.open(tmp_path / "store").spec == store.spec
    assert (store.spec.observation_dim, store.spec.action_dim, store.spec.terminal) == (17, 6, False)
    episode = read_condition(store.path, "episode").flatten().numpy()
    length = len(store) // 3
    assert np.array_equal(episode, np.repeat([0, 1, 2], length))
    s, s_next = (store.rows[:, store.spec.fields[name]] for name in ("observation", "next_observation"))
    same = episode[1:] == episode[:-1]
    np.testing.assert_array_equal(s_next[:-1][same], s[1:][same])
    assert np.abs(s_next[:-1][~same] - s[1:][~same]).max() > 0.01
    assert np.abs(store.rows[:, store.spec.fields["action"]]).max() <= 1


def test_it_is_a_function_of_the_seed(tmp_path):
    first, again, other = (
        collect(tmp_path / str(i), seed=seed, episodes=2) for i, seed in enumerate((5, 5, 6))
    )
    assert np.array_equal(first.rows, again.rows)
    assert not np.array_equal(first.rows, other.rows)
    more = collect(tmp_path / "more", seed=5, episodes=3)
    assert np.array_equal(more.rows[: len(first)], first.rows)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"episodes": 0}, "episodes is 0: give at least 1"),
        ({"gamma": 1.5}, "gamma is 1.5: give a number above 0 and at most 1"),
        ({"gamma": 0.0}, "gamma is 0.0: give a number above 0 and at most 1"),
        ({"action_repeat": 4}, "was trained with action_repeat 2, not 4"),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        collect(tmp_path / "store", **settings)


def test_an_episode_without_a_time_limit_is_not_begun(tmp_path):
    with pytest.raises(ConfigError, match=r"^an episode of lqr_lqr_2_1 may never end: give time_limit"):
        collect_states("lqr_lqr_2_1", "random", str(tmp_path / "store"), episodes=1)
    assert not (tmp_path / "store").exists()
    made = collect_states("lqr_lqr_2_1", "random", str(tmp_path / "store"), episodes=1, time_limit=0.2)
    assert len(made) > 0


def test_a_store_that_exists_is_left_alone(tmp_path):
    collect(tmp_path / "store", episodes=1)
    with pytest.raises(ConfigError, match="exists: give another path"):
        collect(tmp_path / "store", episodes=1)


def test_several_policies_take_turns(tmp_path):
    mixed = collect_states(
        "cheetah_run", "random+medium", str(tmp_path / "mixed"), episodes=4, time_limit=0.2
    )
    alone = {
        policy: collect_states("cheetah_run", policy, str(tmp_path / policy), episodes=4, time_limit=0.2)
        for policy in ("random", "medium")
    }
    length = len(mixed) // 4
    for episode, policy in enumerate(("random", "medium", "random", "medium")):
        rows = slice(episode * length, (episode + 1) * length)
        np.testing.assert_array_equal(mixed.rows[rows], alone[policy].rows[rows])


def test_of_several_policies_each_has_to_exist(tmp_path):
    with pytest.raises(ConfigError, match="no policy 'none'"):
        collect_states("cheetah_run", "random+none", str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()
