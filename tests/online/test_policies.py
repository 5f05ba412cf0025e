"""Behaviour policies: the numpy forward pass, what ships, and what a wrong file or name is told."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_synther.envs.control import EnvConfig
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.online.policies import (
    PolicySpec,
    RandomPolicy,
    TanhGaussianPolicy,
    available_policies,
    load_policy,
    policy_path,
    read_card,
    save_policy,
)

S, A, H = 5, 2, 8
SPEC = PolicySpec(
    "reacher_easy", 2, S, A, layer_sizes=[S, H, H, 2 * A], log_std_bounds=(-5.0, 2.0), kind="tanh_gaussian"
)


def layers(seed=0):
    rng = np.random.default_rng(seed)
    sizes = zip(SPEC.layer_sizes[1:], SPEC.layer_sizes[:-1], strict=True)
    return [(rng.normal(size=s).astype("f4"), rng.normal(size=s[0]).astype("f4")) for s in sizes]


@pytest.fixture
def policy_file(tmp_path):
    path = tmp_path / "reacher.safetensors"
    save_policy(path, SPEC, layers())
    return path


def test_a_known_network_gives_the_action_computed_by_hand():
    # One layer that passes the state on: mean = state, raw log std = 0, so log std = -5 + 3.5 = -1.5.
    spec = PolicySpec("t", 2, 1, 1, layer_sizes=[1, 2], log_std_bounds=(-5.0, 2.0))
    policy = TanhGaussianPolicy(spec, [(np.array([[1.0], [0.0]], "f4"), np.zeros(2, "f4"))])
    state = np.array([[0.3]], "f4")
    noise = np.random.default_rng(7).standard_normal(dtype=np.float32)
    expected = np.tanh(0.3 + np.exp(-1.5) * noise)
    np.testing.assert_allclose(policy.act(state, np.random.default_rng(7)), [[expected]], rtol=1e-6)
    np.testing.assert_allclose(
        policy.act(state, np.random.default_rng(7), deterministic=True), np.tanh([[0.3]])
    )


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 40), seed=st.integers(0, 100))
def test_a_row_does_not_depend_on_the_other_rows(n, seed):
    policy = TanhGaussianPolicy(SPEC, layers(seed))
    states = np.random.default_rng(seed).normal(size=(n, S)).astype("f4")
    together = policy.act(states, np.random.default_rng(), deterministic=True)
    alone = [policy.act(state[None], np.random.default_rng(), deterministic=True)[0] for state in states]
    assert np.array_equal(together, alone)
    sampled = policy.act(states, np.random.default_rng(seed))
    assert sampled.dtype == np.float32
    assert np.abs(sampled).max() <= 1


def test_a_saved_policy_acts_like_the_one_in_memory(policy_file):
    states = np.random.default_rng(1).normal(size=(3, S)).astype("f4")
    loaded = load_policy(str(policy_file), "reacher_easy")
    assert loaded.action_repeat == 2
    expected = TanhGaussianPolicy(SPEC, layers()).act(states, np.random.default_rng(2))
    assert np.array_equal(loaded.act(states, np.random.default_rng(2)), expected)


@pytest.mark.parametrize(("level", "low", "high"), [("medium", 400, 550), ("expert", 740, 1000)])
def test_shipped_policies_are_of_their_level(level, low, high):
    assert available_policies("cheetah_run") == ["random", "expert", "medium"]
    card = read_card(level, "cheetah_run")
    assert card["task"] == "cheetah_run"
    assert len(card["returns"]) == len(card["returns_deterministic"]) == 10
    assert low <= np.mean(card["returns"]) <= high
    from lightning_synther.online.export import play

    env = EnvConfig("cheetah_run", observation="states", action_repeat=card["action_repeat"])
    assert low <= play(load_policy(level, "cheetah_run"), env, seed=1) <= high


def test_random_policy_is_uniform_for_any_task():
    policy = load_policy("random", "ball_in_cup_catch")
    assert isinstance(policy, RandomPolicy)
    actions = policy.act(np.zeros((4000, 8), "f4"), np.random.default_rng(0))
    assert actions.shape == (4000, 2)
    assert actions.min() >= -1
    assert actions.max() <= 1
    np.testing.assert_allclose(actions.std(), 3**-0.5, atol=0.02)
    assert read_card("random", "ball_in_cup_catch") == {"task": "ball_in_cup_catch", "level": "random"}


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ConfigError, match="no policy 'mediun' for cheetah_run: choose one of random, expert, medium"
    ):
        load_policy("mediun", "cheetah_run")


def test_unknown_task_is_named():
    with pytest.raises(ConfigError, match="cheetah_run"):
        load_policy("random", "cheeta_run")


def test_policy_of_another_task_is_refused(policy_file):
    with pytest.raises(ConfigError, match="was trained on reacher_easy, not on cheetah_run"):
        load_policy(str(policy_file), "cheetah_run")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.safetensors does not exist"):
        policy_path(str(tmp_path / "absent.safetensors"), "cheetah_run")


def test_states_of_another_size_are_refused():
    with pytest.raises(ConfigError, match=r"takes states of 5 numbers, got shape \(1, 6\)"):
        TanhGaussianPolicy(SPEC, layers()).act(np.zeros((1, 6), "f4"), np.random.default_rng())


def test_truncated_file_is_refused(policy_file):
    policy_file.write_bytes(policy_file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"reacher\.safetensors is not a policy file"):
        load_policy(str(policy_file), "reacher_easy")


def test_foreign_safetensors_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(DataError, match=r"foreign\.safetensors is not a policy file"):
        load_policy(str(tmp_path / "foreign.safetensors"), "reacher_easy")


@pytest.mark.parametrize("change", [{"kind": "transformer"}, {"unheard_of": 1}])
def test_policy_of_a_newer_version_is_refused(tmp_path, change):
    from dataclasses import asdict

    from safetensors.numpy import save_file

    path = tmp_path / "new.safetensors"
    save_file({"x": np.zeros(3)}, path, metadata={"policy": json.dumps(asdict(SPEC) | change)})
    with pytest.raises(DataError, match="update the package"):
        load_policy(str(path), "reacher_easy")


def test_layer_of_the_wrong_size_is_refused(tmp_path):
    path = tmp_path / "bent.safetensors"
    broken = layers()
    broken[1] = (broken[1][0][:, :-1], broken[1][1])
    save_policy(path, SPEC, broken)
    with pytest.raises(DataError, match=r"layer 1 is missing or not of size \(8, 8\)"):
        load_policy(str(path), "reacher_easy")


def test_policies_start_without_torch():
    code = "import sys, lightning_synther.online.policies; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
