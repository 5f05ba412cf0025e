"""Parts of a dataset: their size, their nesting, what they cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_synther.data.subset import Subset
from lightning_synther.errors import ConfigError

TOTALS = st.integers(1, 200)
SHARES = st.floats(0.001, 1.0)


@given(total=TOTALS, share=SHARES, seed=st.integers(0, 5))
def test_a_fraction_is_rounded_to_whole_ones(total, share, seed):
    subset = Subset(share, seed=seed)
    if round(share * total) == 0:
        with pytest.raises(ConfigError, match="leaves none: give at least"):
            subset.choose(total, "data")
        return
    chosen = subset.choose(total, "data")
    assert len(chosen) == round(share * total)
    assert (np.diff(chosen) > 0).all()
    assert 0 <= chosen[0] <= chosen[-1] < total


@given(total=TOTALS, counts=st.tuples(st.integers(1, 200), st.integers(1, 200)), seed=st.integers(0, 5))
def test_a_smaller_part_lies_within_a_larger_one(total, counts, seed):
    small, large = sorted(min(count, total) for count in counts)
    parts = [Subset(num_episodes=count, seed=seed).choose(total, "data") for count in (small, large)]
    assert set(parts[0]) <= set(parts[1])


def test_seeds_choose_differently_and_wholes_leave_no_trace():
    chosen = {tuple(Subset(0.1, seed=seed).choose(50, "data")) for seed in range(5)}
    assert len(chosen) == 5
    assert Subset(seed=3).inputs() == {}
    assert Subset(0.5, seed=3).inputs() == {"subset": {"fraction": 0.5, "fraction_of": "episodes", "seed": 3}}
    assert Subset(num_episodes=2).inputs() == {"subset": {"num_episodes": 2, "seed": 0}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fraction": 0.0}, r"fraction is 0.0: give a share in \(0, 1\]"),
        ({"fraction": 1.1}, "fraction is 1.1"),
        ({"fraction_of": "rows"}, "fraction is of 'rows': give 'episodes' or 'transitions'"),
        ({"num_episodes": 0}, "num_real_episodes is 0: give at least 1"),
        ({"num_episodes": 2, "fraction": 0.5}, "num_real_episodes is 2 and fraction 0.5 of episodes"),
    ],
)
def test_what_no_part_can_be(settings, said):
    with pytest.raises(ConfigError, match=said):
        Subset(**settings)


def test_more_episodes_than_there_are():
    with pytest.raises(ConfigError, match="num_real_episodes is 6, but data has 5 training episodes"):
        Subset(num_episodes=6).choose(5, "data")
