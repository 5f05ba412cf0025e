from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_synther.diffusion import statistics
from lightning_synther.diffusion.normalizer import StandardNormalizer, build_normalizer
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.99, terminal=True)


@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(2, 200),
    chunk=st.integers(1, 300),
    offset=st.floats(-1e4, 1e4),
    seed=st.integers(0, 2**20),
)
def test_chunked_statistics_equal_those_of_the_whole(num_rows, chunk, offset, seed):
    rows = (np.random.default_rng(seed).normal(size=(num_rows, 4)) + offset).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_CHUNK_VALUES", chunk * 4)
        ours = ColumnStatistics.of(rows)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(ours.mean, wide.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.std, wide.std(0, ddof=1), rtol=1e-9)
    np.testing.assert_array_equal(ours.min, rows.min(0))
    np.testing.assert_array_equal(ours.max, rows.max(0))
    assert ours.count == num_rows


def test_memory_mapped_rows(tmp_path):
    rows = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype=np.float32, mode="r", shape=rows.shape)
    np.testing.assert_allclose(ColumnStatistics.of(mapped).std, rows.std(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(ColumnStatistics.of(torch.from_numpy(rows)).mean, rows.mean(0), rtol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_located(value, monkeypatch):
    monkeypatch.setattr(statistics, "_CHUNK_VALUES", 40)
    rows = np.zeros((30, 4), np.float32)
    rows[17, 2] = value
    with pytest.raises(DataError, match=rf"row 17, column 2 of the data is {value}"):
        ColumnStatistics.of(rows)


@pytest.mark.parametrize("kind", ["standard", "minmax"])
def test_inverse_and_constant_columns(kind):
    rows = torch.randn(500, SPEC.dim) * 3 + 1
    rows[:, 4] = 0.1
    rows[:, -1] = 0.0
    normalizer = build_normalizer(SPEC, kind, [])
    normalizer.fit(ColumnStatistics.of(rows))
    x = normalizer(rows)
    assert x.isfinite().all()
    torch.testing.assert_close(normalizer.inverse(x), rows, rtol=1e-5, atol=1e-5)
    restored = normalizer.restore_constants(normalizer.inverse(torch.randn_like(x)))
    assert (restored[:, 4] == rows[0, 4]).all()
    assert (restored[:, -1] == 0).all()
    assert restored[:, 0].std() > 0.1


def test_standard_normalisation_and_what_it_skips():
    rows = torch.randn(5000, SPEC.dim) * 3 + 1
    normalizer = build_normalizer(SPEC, "standard", ["terminal", "action"])
    normalizer.fit(ColumnStatistics.of(rows))
    x = normalizer(rows)
    skipped = [3, 4, 9]
    kept = [i for i in range(SPEC.dim) if i not in skipped]
    assert torch.equal(x[:, skipped], rows[:, skipped])
    torch.testing.assert_close(x[:, kept].mean(0), torch.zeros(len(kept)), rtol=0, atol=1e-5)
    torch.testing.assert_close(x[:, kept].std(0), torch.ones(len(kept)), rtol=0, atol=1e-4)


def test_statistics_travel_in_the_state_dict():
    fitted, fresh = (StandardNormalizer(4) for _ in range(2))
    fitted.fit(ColumnStatistics.of(torch.randn(50, 4)))
    assert not fresh.fitted
    fresh.load_state_dict(fitted.state_dict())
    assert fresh.fitted
    assert torch.equal(fresh.mean, fitted.mean)


def test_minmax_refuses_to_skip_where_the_published_code_ignores_it():
    with pytest.raises(ConfigError, match=r"'minmax' .* cannot skip \['terminal'\]: set skip_fields to \[\]"):
        build_normalizer(SPEC, "minmax", ["terminal"])
    build_normalizer(
        TransitionSpec(3, 2, discount=0.99), "minmax", ["terminal"]
    )  # no such column: nothing to skip


def test_unknown_names():
    with pytest.raises(ConfigError, match="skip_fields names 'rewards': the fields of a transition are"):
        build_normalizer(SPEC, "standard", ["rewards"])
    with pytest.raises(ConfigError, match="normalizer 'robust' is unknown"):
        build_normalizer(SPEC, "robust", [])
