"""Bounds of users' numbers: what passes, and the sentence for what does not."""

from __future__ import annotations

import math

import pytest

from lightning_synther.bounds import check_counts, check_positive, check_shares
from lightning_synther.errors import ConfigError


def test_what_is_within_passes_and_so_does_what_is_not_given() -> None:
    check_counts("data", episodes=1, envs=None)
    check_counts("", least=0, num_layers=0)
    check_positive("", lr=1e-9, actor_lr=None)
    check_shares("", tau=1.0, gamma=1e-9, other=None)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, -math.inf, math.nan])
def test_a_positive_number_is_finite_and_above_0(value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^lr is {value}: give a number above 0$"):
        check_positive("", lr=value)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.0000001, math.inf, math.nan])
def test_a_share_is_above_0_and_at_most_1(value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.gamma is {value}: give a number above 0 and at most 1$"):
        check_shares("data", gamma=value)


@pytest.mark.parametrize(("least", "value"), [(1, 0), (1, -5), (0, -1)])
def test_a_count_is_at_least_1_or_what_is_said(least: int, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.episodes is {value}: give at least {least}$"):
        check_counts("data", least=least, episodes=value)
