import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, wasserstein_distance

from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import DataError
from lightning_synther.synthesis import joint
from lightning_synther.synthesis.dynamics import Dynamics
from lightning_synther.synthesis.fidelity import fidelity
from lightning_synther.synthesis.figures import fidelity_figure
from lightning_synther.synthesis.joint import (
    correlation_error,
    correlations,
    sliced_wasserstein,
    sliced_wassersteins,
)
from lightning_synther.synthesis.marginals import ks_statistic, ks_statistics
from lightning_synther.synthesis.subsample import Units, subsample, thin
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=6, action_dim=2, discount=0.99)


def transitions(num, seed=0, noise=0.05, scale=1.0):
    """Rows with a relation: reward and next observation follow from observation and action."""
    generator = np.random.default_rng(seed)
    observation = generator.standard_normal((num, 6)) * scale
    action = np.tanh(generator.standard_normal((num, 2)))
    following = 0.9 * observation + action.sum(1, keepdims=True) + noise * generator.standard_normal((num, 6))
    reward = np.tanh(observation[:, :1] * action[:, :1]) + noise * generator.standard_normal((num, 1))
    return np.concatenate([observation, action, reward, following], axis=1).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 2**31), st.booleans())
def test_ks_is_scipys(n, m, seed, ties):
    generator = np.random.default_rng(seed)
    first, second = generator.standard_normal((n, 3)), generator.standard_normal((m, 3)) * 1.5
    if ties:
        first, second = first.round(), second.round()
    expected = [ks_2samp(first[:, i], second[:, i]).statistic for i in range(3)]
    found = ks_statistic(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.integers(0, 2**31),
    st.sampled_from([None, 1, 2]),
)
def test_ks_leaves_out_nothing_that_counts(n, m, shift, seed, decimals):
    """Most ranks are not looked at; nearly equal samples and ties leave many undecided."""
    generator = np.random.default_rng(seed)
    first, second = generator.standard_normal(n), generator.standard_normal(m) + shift
    if decimals is not None:
        first, second = first.round(decimals), second.round(decimals)
    first, second = first.astype(np.float32), second.astype(np.float32)
    found = ks_statistic(*(torch.from_numpy(x)[:, None] for x in (first, second)))
    assert found.item() == pytest.approx(ks_2samp(first, second).statistic, abs=1e-12)


def test_ks_of_a_sample_with_itself_is_0():
    rows = torch.from_numpy(transitions(5000))
    assert ks_statistic(rows, rows.flip(0)).max() == 0


def test_several_comparisons_are_those_of_each_pair():
    samples = [torch.from_numpy(transitions(num, seed)) for seed, num in enumerate((900, 1100, 2500))]
    before = [rows.clone() for rows in samples]
    pairs = [(0, 1), (2, 1), (0, 2)]
    statistics, distances = ks_statistics(samples, pairs), sliced_wassersteins(samples, pairs)
    for k, (one, other) in enumerate(pairs):
        assert torch.equal(statistics[k], ks_statistic(samples[one], samples[other]))
        expected = sliced_wasserstein(samples[one], samples[other])
        assert distances[k] == pytest.approx(expected, rel=1e-6)
    assert all(torch.equal(rows, old) for rows, old in zip(samples, before, strict=True))


def test_correlations_beside_a_large_mean():
    rows = transitions(20_000)
    shifted = torch.from_numpy(rows + np.float32(100))
    np.testing.assert_allclose(correlations(shifted), np.corrcoef(rows.T), atol=1e-4)


def test_correlations_are_numpys_and_0_with_a_constant_column():
    rows = transitions(500)
    np.testing.assert_allclose(correlations(torch.from_numpy(rows)), np.corrcoef(rows.T), atol=1e-5)
    rows[:, 3] = 0.1
    found = correlations(torch.from_numpy(rows))
    assert found[3].abs().max() == 0
    assert found.isfinite().all()


def test_correlation_error_counts_pairs_of_different_columns():
    first = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    second = torch.tensor([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    assert correlation_error(first, second) == pytest.approx(2.0)


def test_sliced_wasserstein_of_one_column_is_scipys():
    generator = np.random.default_rng(0)
    first, second = generator.standard_normal((3000, 1)), generator.standard_normal((3000, 1)) + 0.7
    expected = wasserstein_distance(first[:, 0], second[:, 0])
    found = sliced_wasserstein(*(torch.from_numpy(x).float() for x in (first, second)))
    assert found == pytest.approx(expected, rel=1e-4)


def test_sliced_wasserstein_of_unequal_sizes():
    generator = np.random.default_rng(0)
    first = torch.from_numpy(generator.standard_normal((4000, 5))).float()
    assert sliced_wasserstein(first, first[::2] + 1) == pytest.approx(
        sliced_wasserstein(first, first + 1), rel=0.05
    )


def test_perfect_samples_score_the_floor():
    result = fidelity(transitions(4000, 0), transitions(4000, 1), transitions(4000, 2), SPEC)
    scores = result.scores
    for name in ("ks_mean", "correlation_error", "sliced_wasserstein", "dynamics_error"):
        assert scores[name] == pytest.approx(scores[f"{name}_floor"], rel=0.35)
    assert scores["ks_mean"] < 0.03
    assert scores["ks_max"] >= scores["ks_mean"]
    assert all(isinstance(value, float) for value in scores.values())


def test_each_score_sees_its_own_fault():
    real, heldout = transitions(4000, 0), transitions(4000, 2)

    wider = fidelity(real, transitions(4000, 1, scale=1.5), heldout, SPEC)
    assert wider.scores["ks_observation"] > 3 * wider.scores["ks_observation_floor"]
    assert wider.scores["ks_action"] < 2 * wider.scores["ks_action_floor"]
    assert wider.ks["observation"].min() > wider.ks["action"].max()
    assert wider.scores["sliced_wasserstein"] > 3 * wider.scores["sliced_wasserstein_floor"]

    # Next observations of other transitions: every marginal is right, the relation is gone.
    shuffled = transitions(4000, 1)
    columns = SPEC.fields["next_observation"]
    shuffled[:, columns] = np.roll(shuffled[:, columns], 1, axis=0)
    broken = fidelity(real, shuffled, heldout, SPEC)
    assert broken.scores["ks_mean"] < 0.03
    assert broken.scores["correlation_error"] > 3 * broken.scores["correlation_error_floor"]
    assert broken.scores["dynamics_error"] > 2 * broken.scores["dynamics_error_floor"]


def test_a_little_noise_in_the_dynamics_shows_in_nothing_else():
    real, heldout = transitions(8000, 0), transitions(8000, 2)
    noisy = fidelity(real, transitions(8000, 1, noise=0.2), heldout, SPEC).scores
    assert noisy["dynamics_error"] > 1.5 * noisy["dynamics_error_floor"]
    assert noisy["ks_mean"] < 2 * noisy["ks_mean_floor"]


def test_dynamics_learn_a_nonlinear_relation():
    rows = torch.from_numpy(transitions(8000, 0, noise=0.0))
    predictor = Dynamics(rows[:6000], SPEC)
    assert predictor.error(rows[6000:]) < 0.15
    assert rows[:, predictor.targets].std() > 1


def test_same_seed_same_scores_and_memory_maps_are_read_in_place(tmp_path):
    real, fake, heldout = (transitions(3000, seed) for seed in range(3))
    np.save(tmp_path / "fake.npy", fake)
    mapped = np.load(tmp_path / "fake.npy", mmap_mode="r")
    scores = [
        fidelity(real, rows, heldout, SPEC, max_rows=1000).scores
        for rows in (fake, mapped, torch.from_numpy(fake))
    ]
    assert scores[0] == scores[1] == scores[2]
    assert fidelity(real, fake, heldout, SPEC, max_rows=1000, seed=1).scores != scores[0]


def test_subsample_is_a_part_without_repetition():
    rows = np.repeat(np.arange(100, dtype=np.float32)[:, None], SPEC.dim, axis=1)
    part = subsample(rows, 60, SPEC, seed=0)[:, 0]
    assert len(part.unique()) == 60
    assert torch.equal(subsample(rows, 100, SPEC, seed=0)[:, 0], torch.arange(100.0))


def test_all_rows_are_read_in_place_and_only_read_ones_copied():
    rows = transitions(40)
    assert np.shares_memory(subsample(rows, 40, SPEC, seed=0).numpy(), rows)
    rows.flags.writeable = False
    assert not np.shares_memory(subsample(rows, 40, SPEC, seed=0).numpy(), rows)


def test_large_finite_values_whose_sum_overflows_are_fine():
    rows = transitions(40)
    rows[:, 0] = 3e38
    assert len(subsample(rows, 40, SPEC, seed=0)) == 40


def test_thinning_is_random_so_that_episodes_of_equal_length_do_not_show_one_moment_each():
    moments = torch.arange(500).repeat(200)[:, None].float()
    chosen = thin(moments, 200, seed=0)
    assert len(chosen.unique()) > 100
    assert torch.equal(chosen, thin(moments, 200, seed=0))
    assert not torch.equal(chosen, thin(moments, 200, seed=1))


def test_units_leave_the_rows_alone():
    rows = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    units = Units.of(ColumnStatistics.of(rows))
    torch.testing.assert_close(units(rows), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]) / 2**0.5)
    assert rows[0, 0] == 1


def test_a_part_says_how_large_it_was(monkeypatch):
    monkeypatch.setattr(joint, "MAX_PROJECTED", 300)
    parts = transitions(1000, 0), transitions(800, 1), transitions(500, 2)
    some = fidelity(*parts, SPEC)
    assert some.counts["sliced_wasserstein"] == 300
    monkeypatch.setattr(joint, "MAX_PROJECTED", 10_000)
    whole = fidelity(*parts, SPEC)
    assert whole.counts["sliced_wasserstein"] == 800
    distances = [result.scores["sliced_wasserstein"] for result in (some, whole)]
    assert distances[0] != distances[1]
    assert distances[0] == pytest.approx(distances[1], abs=0.1)
    assert some.scores["ks_mean"] == whole.scores["ks_mean"]


def test_bad_rows():
    good = transitions(50)
    with pytest.raises(DataError, match=r"two or more rows of 15 numbers, got an array of shape \(50, 14\)"):
        fidelity(good, good[:, 1:], good, SPEC)
    with pytest.raises(DataError, match=r"two or more rows of 15 numbers, got an array of shape \(1, 15\)"):
        fidelity(good, good, good[:1], SPEC)
    bad = good.copy()
    bad[4, 4] = np.nan
    with pytest.raises(DataError, match="not finite"):
        fidelity(good, bad, good, SPEC)


def test_a_constant_column_is_harmless():
    real, fake, heldout = (transitions(500, seed) for seed in range(3))
    for rows in (real, fake, heldout):
        rows[:, 7] = 0.25
    assert all(np.isfinite(value) for value in fidelity(real, fake, heldout, SPEC).scores.values())


def test_the_figure_shows_marginals_and_correlations(tmp_path):
    figure = fidelity_figure(transitions(2000), transitions(2000, 1, scale=1.5), SPEC)
    axes = [axis for part in figure.subfigs for axis in part.axes]
    titles = [axis.get_title() for axis in axes]
    assert sum("KS" in title for title in titles) == 8
    assert any(title.startswith("reward") for title in titles)
    assert {"real", "synthetic", "synthetic - real"} <= set(titles)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_figure_reaches_tensorboard(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        writer.add_figure("fidelity", fidelity_figure(transitions(200), transitions(200, 1), SPEC))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > 10_000
