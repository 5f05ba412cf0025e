"""Known answers: copies are memorised, fresh records are neither that nor unsupported, noise is."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.synthesis import novelty
from lightning_synther.synthesis.fidelity import fidelity
from lightning_synther.synthesis.figures import novelty_figure
from lightning_synther.synthesis.novelty import TAIL, Novelty, nearest_distances, nearest_index
from lightning_synther.synthesis.support import Support, support_scores
from lightning_synther.transition import TransitionSpec
from tests.synthesis.test_fidelity import SPEC, transitions


def normal(num, seed, dim=4):
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", [1, 70, 1 << 24])
def test_nearest_is_scipys(monkeypatch, block):
    monkeypatch.setattr(novelty, "_BLOCK_VALUES", block)
    queries, candidates = normal(30, 0), normal(101, 1)
    distances = cdist(queries, candidates)
    assert nearest_index(queries, candidates).tolist() == distances.argmin(1).tolist()
    np.testing.assert_allclose(nearest_distances(queries, candidates), distances.min(1) / 2, rtol=1e-5)


def test_copies_are_memorised():
    train = normal(3000, 0)
    scores = Novelty.of(train, train[::2], normal(1000, 1)).scores()
    assert scores["nearest"] == 0
    assert scores["memorised"] == 1
    assert scores["unsupported"] == 0


def test_half_copies_show_as_half():
    train, fresh = normal(3000, 0), normal(500, 2)
    mixed = torch.stack([train[:500], fresh], dim=1).flatten(0, 1)
    scores = Novelty.of(train, mixed, normal(1000, 1)).scores()
    assert scores["memorised"] == pytest.approx(0.5 + TAIL / 2, abs=0.02)


def test_fresh_records_are_neither_memorised_nor_unsupported():
    scores = Novelty.of(normal(3000, 0), normal(1000, 2), normal(1000, 1)).scores()
    assert scores["nearest"] == pytest.approx(scores["nearest_floor"], rel=0.1)
    assert scores["memorised"] < 4 * TAIL
    assert scores["unsupported"] < 4 * TAIL


def test_records_off_the_data_are_unsupported():
    scores = Novelty.of(normal(3000, 0), normal(1000, 2) + 6, normal(1000, 1)).scores()
    assert scores["unsupported"] > 0.99
    assert scores["memorised"] == 0


def test_support_is_the_range_of_the_data_and_a_margin():
    spec = TransitionSpec(observation_dim=1, action_dim=1, discount=0.9, terminal=True)
    data = np.array([[0, -1, 0, 0, 0], [2, 1, 1, 5, 1]], np.float32)
    statistics = ColumnStatistics.of(data)
    rows = torch.tensor(
        [
            [1, 0, 0, 2, 0],
            [2, 1, 1, 5, 3],  # a terminal may be any number
            [2.2, 0, 0, 2, 0],
            [1, 0, 0, -9, 0],
            [1, float("nan"), 0, 2, 0],
        ]
    )
    assert Support.of(statistics, spec, margin=0).contains(rows).tolist() == [True, True, False, False, False]
    assert Support.of(statistics, spec, margin=0.2).contains(rows).tolist() == [
        True,
        True,
        True,
        False,
        False,
    ]
    scores = support_scores(Support.of(statistics, spec), rows[:4], rows[:1], spec)
    assert scores == {
        "out_of_range": 0.5,
        "action_beyond_1": 0.0,
        "out_of_range_floor": 0.0,
        "action_beyond_1_floor": 0.0,
    }


def test_fidelity_sees_a_model_that_only_copies():
    real, heldout = transitions(2000, 0), transitions(1000, 2)
    copied, fresh = (
        fidelity(real, rows, heldout, SPEC) for rows in (real[::-1].copy(), transitions(2000, 1))
    )
    assert copied.scores["ks_mean"] == pytest.approx(
        fresh.scores["ks_mean"], abs=0.02
    )  # marginals cannot tell
    assert copied.scores["memorised"] == 1
    assert fresh.scores["memorised"] < 4 * TAIL
    assert fresh.counts["heldout"] == fresh.counts["nearest_queries"] == 1000
    assert fresh.counts["training"] == fresh.counts["nearest_candidates"] == 2000
    assert len(novelty_figure(copied.novelty).axes[0].lines) == 2


def test_without_heldout_records_there_are_no_floors():
    result = fidelity(transitions(500, 0), transitions(500, 1), None, SPEC)
    assert result.novelty is None
    assert result.counts["heldout"] == 0
    assert not [name for name in result.scores if name.endswith(("_floor", "_train")) or "memorised" in name]
    assert {"ks_mean", "dynamics_error", "reward_error", "out_of_range"} <= set(result.scores)
