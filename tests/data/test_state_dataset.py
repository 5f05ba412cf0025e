"""Transitions of plain arrays: what follows what, what is dropped, what is refused; selection; stores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_synther.data.conditions import read_condition
from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.data.state_formats import load_states
from lightning_synther.data.store import TransitionStore
from lightning_synther.errors import ConfigError, DataError


def arrays(num_rows=6, terminals=(2,), timeouts=(5,), **others):
    """Row i has observation (i, 10 i), action i / 10, reward i; ends at the given rows."""
    row = np.arange(num_rows, dtype=np.float32)
    return {
        "observations": np.stack([row, 10 * row], 1),
        "actions": row[:, None] / 10,
        "rewards": row,
        "terminals": np.isin(row, terminals),
        "timeouts": np.isin(row, timeouts),
        **others,
    }


def following(values):
    """next_observations of `arrays`, where an episode's last one is 100 more."""
    ends = values["terminals"] | values["timeouts"]
    return values["observations"] + np.where(ends[:, None], 100, [[1, 10]]).astype(np.float32)


def test_without_next_observations_the_last_row_of_a_timeout_goes_and_a_terminal_stays():
    data = StateDataset.from_arrays(**arrays())
    assert data.reward[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert data.next_observation[:, 0].tolist() == [1, 2, 2, 4, 5]  # the terminal's own stands in
    assert data.terminal[:, 0].tolist() == [False, False, True, False, False]
    assert data.episode.tolist() == [0, 0, 0, 1, 1]


def test_with_next_observations_every_row_stays_and_a_timeout_is_no_terminal():
    values = arrays()
    data = StateDataset.from_arrays(**values, next_observations=following(values))
    assert len(data) == 6
    assert data.next_observation[:, 0].tolist() == [1, 2, 102, 4, 5, 105]
    assert data.terminal[:, 0].tolist() == [False, False, True, False, False, False]


def test_without_timeouts_an_episode_ends_where_the_next_observation_is_not_the_next_row():
    values = arrays(terminals=())
    values["timeouts"] = np.isin(np.arange(6), [1, 3, 5])
    nexts = following(values)
    values["timeouts"] = None
    data = StateDataset.from_arrays(**values, next_observations=nexts)
    assert data.episode.tolist() == [0, 0, 1, 1, 2, 2]
    assert not data.terminal.any()


def test_without_timeouts_and_next_observations_the_length_ends_an_episode():
    data = StateDataset.from_arrays(
        **arrays(9, terminals=(3,), timeouts=()) | {"timeouts": None}, max_episode_steps=3
    )
    # Ends after rows 2 (length), 3 (terminal), 6 (length) and 8 (the file's end).
    assert data.reward[:, 0].tolist() == [0, 1, 3, 4, 5, 7]
    assert data.episode.tolist() == [0, 0, 1, 2, 2, 3]


def test_terminals_alone_end_episodes_and_it_is_said(caplog):
    data = StateDataset.from_arrays(**arrays() | {"timeouts": None})
    assert data.episode.tolist() == [0, 0, 0, 1, 1]
    assert "end at terminals alone" in caplog.text


def test_other_action_bounds_are_rescaled_and_it_is_said(caplog):
    caplog.set_level("INFO")
    values = arrays()
    values["actions"] = np.array([[-2.0], [0], [2], [4], [1], [1]])
    data = StateDataset.from_arrays(**values, action_low=-2, action_high=[4.0])
    np.testing.assert_allclose(data.action[:, 0], [-1, -1 / 3, 1 / 3, 1, 0], atol=1e-6)
    assert "rescaled to [-1, 1] from -2 to 4" in caplog.text


def plainly(values):
    """D4RL's loop over rows, with this project's rule for terminals: (reward, next observation, episode) of each."""
    found, episode = [], 0
    for i in range(len(values["rewards"])):
        terminal, last = values["terminals"][i], i + 1 == len(values["rewards"])
        if terminal:
            found.append((i, i, episode))
        elif not (values["timeouts"][i] or last):
            found.append((i, i + 1, episode))
        episode += int(terminal or values["timeouts"][i])
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=14))
def test_derivation_is_that_of_a_plain_loop(ends):
    terminals, timeouts = (np.flatnonzero(marks) for marks in zip(*ends, strict=True))
    values = arrays(len(ends), terminals, timeouts)
    values["actions"] = values["actions"] / 2
    wanted = plainly(values)
    if not wanted:
        with pytest.raises(DataError, match="no whole transition"):
            StateDataset.from_arrays(**values)
        return
    data = StateDataset.from_arrays(**values)
    rewards, following, episodes = zip(*wanted, strict=True)
    assert data.reward[:, 0].tolist() == list(rewards)
    assert data.next_observation[:, 0].tolist() == list(following)
    assert (np.diff(data.episode) == (np.diff(episodes) != 0)).all()
    assert data.terminal[:, 0].tolist() == [bool(values["terminals"][i]) for i in rewards]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rewards": np.array([0, 1, np.nan, 3, 4, 5])},
            "rewards that are not finite in 1 rows .the first is row 2",
        ),
        ({"observations": np.full((6, 2), np.inf)}, "observations that are not finite in 6 rows"),
        ({"actions": np.zeros((5, 1))}, "unequal length .*actions 5"),
        ({"terminals": None}, "lacks terminals .*are zeros"),
        (
            {"terminals": np.zeros(6), "timeouts": None},
            "neither timeouts nor next_observations nor a terminal",
        ),
        ({"observations": np.zeros((6, 64, 64, 3), np.uint8)}, r"images as observations \(64, 64, 3\)"),
        ({"observations": np.zeros(6)}, "observations of float64"),
        ({"actions": np.full((6, 1), 2.0)}, "actions up to 2, outside"),
        ({"actions": np.full((6, 1), 2.0), "action_high": 1.5}, "outside .* give the environment's bounds"),
        ({"action_low": 1.0, "action_high": -1.0}, "the first below the second"),
        ({"next_observations": np.zeros((6, 3))}, "must be of one shape"),
        ({"next_observations": np.full((6, 2), np.nan)}, "next_observations that are not finite"),
        ({"rewards": np.zeros((6, 2))}, "one number a row"),
        ({"timeouts": np.ones(6), "terminals": np.zeros(6)}, "no whole transition"),
        (arrays(0), "is empty"),
    ],
)
def test_bad_arrays_are_one_sentence(change, message):
    with pytest.raises(DataError, match=message) as error:
        StateDataset.from_arrays(**arrays() | change, name="mine")
    assert "mine" in str(error.value)
    assert "\n" not in str(error.value)


def long_data(lengths=(3, 5, 2, 4), **metadata):
    """Episodes of ``lengths``, the second one ended for good."""
    num_rows = sum(lengths)
    ends = np.cumsum(lengths) - 1
    values = arrays(num_rows, terminals=ends[1:2], timeouts=np.delete(ends, 1))
    values["actions"] = np.linspace(-1, 1, num_rows)[:, None]
    return StateDataset.from_arrays(**values, next_observations=following(values), **metadata)


def test_returns_and_lengths():
    data = long_data()
    assert data.lengths.tolist() == [3, 5, 2, 4]
    assert data.returns.tolist() == [3, 25, 17, 46]
    assert (data.num_episodes, len(data)) == (4, 14)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_a_fraction_is_whole_episodes_in_order_and_part_of_a_larger_one(lengths, share, seed):
    data = long_data((3, 3, *lengths))
    wanted = round(share * data.num_episodes)
    if not wanted:
        with pytest.raises(ConfigError, match="leaves none"):
            data.fraction(share, seed=seed)
        return
    part, larger = data.fraction(share, seed=seed), data.fraction(min(1.0, 2 * share), seed=seed)
    starts = part.observation[np.flatnonzero(np.diff(part.episode, prepend=-1)), 0]
    assert part.num_episodes == wanted
    assert (np.diff(part.observation[:, 0]) > 0).all()
    all_starts = data.observation[np.flatnonzero(np.diff(data.episode, prepend=-1)), 0].tolist()
    assert part.lengths.tolist() == [data.lengths[all_starts.index(start)] for start in starts]
    assert set(part.observation[:, 0]) <= set(larger.observation[:, 0])


def test_a_fraction_of_transitions_keeps_their_episodes():
    data = long_data((10, 10))
    part = data.fraction(0.25, of="transitions", seed=3)
    assert len(part) == 5
    assert (part.episode == (part.observation[:, 0] >= 10)).all()
    np.testing.assert_array_equal(part.action, data.fraction(0.25, of="transitions", seed=3).action)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1,), "0.1 of the 4 episodes of arrays leaves none"),
        ((0,), "in .0, 1"),
        ((0.5, "rows"), "of 'rows'"),
    ],
)
def test_bad_fractions(arguments, message):
    with pytest.raises(ConfigError, match=message):
        long_data().fraction(*arguments)


def test_the_last_episodes_are_held_out():
    train, heldout = long_data().split_episodes(0.3)
    assert (train.lengths.tolist(), heldout.lengths.tolist()) == ([3, 5], [2, 4])
    assert heldout.episode.tolist() == [0, 0, 1, 1, 1, 1]
    assert long_data().split_episodes(0.0)[1] is None
    with pytest.raises(ConfigError, match="leaves none to train on"):
        long_data().split_episodes(0.9)


def test_a_store_gives_everything_back(tmp_path):
    env = {"task": "cheetah_run", "observation": "states", "action_repeat": 2}
    data = long_data(name="mine", env=env, reference_scores=(-3.0, 500.0))
    store = data.write(tmp_path / "store", gamma=0.9)
    assert store.spec.terminal
    assert store.metadata.extra["episodes"] == {"return_min": 3.0, "return_max": 46.0, "max_length": 5}
    assert store.metadata.extra["task"] == "cheetah_run"
    assert store.metadata.extra["env"] == {**env, "reference_scores": [-3.0, 500.0]}
    batch = store.spec.unflatten(store.load())
    assert batch.discount[:, 0].tolist() == pytest.approx([0.9] * 7 + [0] + [0.9] * 6)
    assert read_condition(tmp_path / "store", "episode").shape == (14, 1)
    back = load_states(tmp_path / "store")
    for name in ("observation", "action", "reward", "next_observation", "terminal", "episode"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
        assert getattr(back, name).dtype == getattr(data, name).dtype
    assert (back.name, back.env, back.reference_scores) == ("mine", env, (-3.0, 500.0))
    assert back.fingerprint == data.fingerprint


def test_terminals_take_a_column_only_where_there_are_some(tmp_path):
    never = StateDataset.from_arrays(**arrays(terminals=()))
    assert not never.spec().terminal
    assert never.spec(terminal=True).terminal
    assert TransitionStore.open(never.write(tmp_path / "store", terminal=True).path).spec.terminal
    with pytest.raises(ConfigError, match="has 1 terminals"):
        long_data().spec(terminal=False)


def test_an_unknown_path_format_or_option_is_named(tmp_path):
    (tmp_path / "file.txt").write_text("no data")
    with pytest.raises(DataError, match=r"file.txt is in no format .* tried .*store"):
        load_states(tmp_path / "file.txt")
    with pytest.raises(ConfigError, match="no format 'csv'"):
        load_states(tmp_path / "file.txt", format="csv")
    path = long_data().write(tmp_path / "store").path
    with pytest.raises(ConfigError, match="has no option colour"):
        load_states(path, colour="red")
