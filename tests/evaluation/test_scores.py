"""Summary figures with known answers."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_synther.envs.config import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.references import d4rl_family, references
from lightning_synther.evaluation.rollout import EpisodeResult
from lightning_synther.evaluation.scores import (
    bootstrap_interval,
    normalized_score,
    score_summary,
    standard_error,
    unique_results,
)


def test_known_values():
    assert normalized_score([400, 500]) == 45.0
    assert normalized_score([-20.272305, 3234.3], (-20.272305, 3234.3)) == 50.0
    assert standard_error([1, 2, 3, 4]) == pytest.approx(np.sqrt(5 / 3) / 2)
    assert standard_error([7.0]) == 0.0


def test_bootstrap_interval_is_that_of_the_normal_approximation_for_many_values():
    values = np.random.default_rng(0).normal(100, 10, 400)
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - 1.96 * standard_error(values), abs=0.1)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error(values), abs=0.1)
    assert bootstrap_interval(values) == (low, high)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=12))
def test_summary_is_plain_and_consistent(returns):
    summary = json.loads(json.dumps(score_summary(returns)))
    assert summary["episodes"] == len(returns)
    assert summary["returns"] == returns
    assert summary["normalized_score"] == pytest.approx(summary["return_mean"] / 10)
    slack = 1e-9 * (1 + summary["return_mean"])
    assert summary["return_low"] - slack <= summary["return_mean"] <= summary["return_high"] + slack
    assert min(returns) - slack <= summary["return_low"]


def test_without_references_there_is_no_normalised_score():
    assert "normalized_score" not in score_summary([1.0], None)


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        (EnvConfig("cheetah_run"), (0.0, 1000.0)),
        (EnvConfig("gymnasium:Walker2d-v5", "states"), (1.629008, 4592.3)),
        (EnvConfig("gymnasium:Walker2d-v5", "states", reference_scores=(1, 2)), (1, 2)),
        (EnvConfig("gymnasium:Swimmer-v5", "states"), None),
        (EnvConfig("ogbench:ant-v0", "states"), None),
    ],
)
def test_what_returns_are_measured_against(env, wanted):
    assert references(env) == wanted


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("hopper_medium-v2", "hopper"),
        ("ant-medium-v0", "ant"),
        ("antmaze-umaze-v2", "antmaze"),
        ("Ant_maze_big-maze_noisy_multistart_True_multigoal_True_sparse_fixed", "antmaze"),
        ("maze2d-large-dense-v1", "maze2d-large-dense"),
        ("maze2d-eval-large-sparse-v1", None),
        ("antelope", None),
        ("walker_mixed", "walker2d"),
        ("walker_medium-replay-v2", "walker2d"),
        ("walker_walk", None),
        ("walker_medium", None),
    ],
)
def test_families_of_d4rl(name, family):
    assert d4rl_family(name) == family


def test_no_episode_is_a_sentence():
    with pytest.raises(ConfigError, match="set eval_episodes to 1 or more"):
        score_summary([])


def test_repeated_seeds_count_once_in_order():
    results = [EpisodeResult(seed, value, 1) for seed, value in [(3, 1.0), (1, 2.0), (3, 9.0), (2, 4.0)]]
    assert [(r.seed, r.episode_return) for r in unique_results(results)] == [(3, 1.0), (1, 2.0), (2, 4.0)]
