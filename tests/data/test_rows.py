"""Rows that are there already become a store, byte by byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_synther.data import rows as module
from lightning_synther.data.rows import write_rows
from lightning_synther.data.store import TransitionStore
from lightning_synther.errors import DataError
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.99, terminal=True)


def test_rows_are_written_as_they_are_over_several_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    rows = np.random.default_rng(0).random((20, SPEC.dim)).astype(np.float32)
    write_rows(tmp_path / "store", rows, SPEC, producer="test", seed=5)
    store = TransitionStore.open(tmp_path / "store", SPEC)
    np.testing.assert_array_equal(store.rows, rows)
    assert (store.metadata.producer, store.metadata.seed) == ("test", 5)


def test_a_transition_is_laid_out_and_replaces_what_was_there(tmp_path):
    rows = torch.rand(10, SPEC.dim)
    write_rows(tmp_path / "store", torch.zeros(3, SPEC.dim), SPEC)
    store = write_rows(tmp_path / "store", SPEC.unflatten(rows), SPEC)
    assert len(store) == 10
    np.testing.assert_array_equal(store.rows[:, :-1], rows[:, :-1])
    np.testing.assert_array_equal(store.rows[:, -1], (rows[:, -1] > 0.5).float())


@pytest.mark.parametrize("shape", [(4, 5), (0, 10), (10,)])
def test_rows_of_another_size_are_refused(tmp_path, shape):
    with pytest.raises(DataError, match=r"needs \(N, 10\)"):
        write_rows(tmp_path / "store", np.zeros(shape, np.float32), SPEC)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(DataError, match="1 of 2 rows"):
        write_rows(tmp_path / "store", np.array([[np.nan] * 10, [0] * 10], np.float32), SPEC)
