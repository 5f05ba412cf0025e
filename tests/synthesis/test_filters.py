"""Filtered chunks: what is dropped, what takes its place, and that both are a function of the chunk alone."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import DataError
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis.filters import Filters
from lightning_synther.synthesis.support import Support
from tests.synthesis.gaussian import SPEC, Gaussian, predict
from tests.synthesis.test_sample import python_path


def within(limit):
    """Passes rows whose columns lie within +- limit."""
    return Filters(Support(torch.full((SPEC.dim,), -limit), torch.full((SPEC.dim,), limit)))


def draw(num, seed):
    return torch.randn(num, SPEC.dim, generator=torch.Generator().manual_seed(seed))


def test_what_fills_a_chunk_are_the_rows_that_pass_in_order():
    filters = within(2.0)
    first = draw(50, 7)
    rows, counts = filters.fill(first, 7, draw)
    assert rows.shape == first.shape
    assert rows.abs().max() <= 2
    passing = first[(first.abs() <= 2).all(1)]
    torch.testing.assert_close(rows[: len(passing)], passing)
    missing = 50 - len(passing)
    second = draw(counts[0] - 50, derive_seed(7, "refill", 1))  # one more round sufficed
    torch.testing.assert_close(rows[len(passing) :], second[(second.abs() <= 2).all(1)][:missing])
    sampled = torch.cat([first, second])
    assert counts == [len(sampled), 0, int((sampled.abs() > 2).any(1).sum())]


def test_rows_that_are_not_finite_are_replaced_and_counted_once():
    first = draw(10, 3)
    first[2] = torch.nan
    first[4, 1] = torch.inf
    rows, counts = Filters().fill(first, 3, draw)
    assert rows.isfinite().all()
    assert counts[1:] == [2, 0]
    assert within(9.0).fill(first, 3, draw)[1][1:] == [2, 0]


def test_nothing_that_passes_is_one_sentence():
    with pytest.raises(
        DataError, match=r"too many to fill a chunk of 5: train .* or raise synthesis\.support_margin"
    ):
        within(0.0).fill(draw(5, 0), 0, draw)


def test_a_store_counts_what_it_dropped(tmp_path):
    store = predict(Gaussian(), tmp_path / "store", filters=within(2.0))
    assert len(store) == 25
    assert np.abs(store.rows).max() <= 2
    expected = [within(2.0).fill(draw(n, s), s, draw)[1] for n, s in zip((10, 10, 5), seeds(), strict=True)]
    counts = np.sum(expected, axis=0).tolist()
    assert store.metadata.extra["counts"] == dict(
        zip(("sampled", "non_finite", "out_of_range"), counts, strict=True)
    )
    assert counts[2] > 0
    assert sorted(path.name for path in store.path.iterdir()) == ["metadata.json", "rows.npy"]


def seeds():
    return [derive_seed(5, "synthesis", index) for index in range(3)]


def test_filters_mend_a_chunk_that_would_stop_the_run(tmp_path):
    class Bad(Gaussian):
        def predict_step(self, chunk, batch_idx=0):
            rows = super().predict_step(chunk, batch_idx)
            if chunk.seed in seeds():  # the first round only
                rows[:2] = torch.nan
            return rows

    store = predict(Bad(), tmp_path / "store", filters=Filters())
    assert store.metadata.extra["counts"]["non_finite"] == 6
    assert np.isfinite(store.rows).all()


def test_an_interrupted_filtered_store_is_continued_to_the_same_bytes_and_counts(tmp_path):
    whole = predict(Gaussian(), tmp_path / "whole", filters=within(2.0))
    with pytest.raises(RuntimeError, match="the power went out"):
        predict(Gaussian(stop_at=1), tmp_path / "store", filters=within(2.0))
    store = predict(Gaussian(), tmp_path / "store", filters=within(2.0))
    np.testing.assert_array_equal(store.rows, whole.rows)
    assert store.metadata.extra == whole.metadata.extra
    assert store.metadata.fingerprint == whole.metadata.fingerprint
    assert within(1.9).fingerprint != within(2.0).fingerprint != Filters().fingerprint


TWO_RANKS = """
data = SynthesisData(sys.argv[1], 45, chunk_size=10, seed=5, filters=within(2.0))
trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False,
                     enable_progress_bar=False, callbacks=[StoreWriterCallback(data)])
trainer.predict(Gaussian(), datamodule=data, return_predictions=False)
"""


def test_two_ranks_write_the_same_filtered_store(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\nfrom tests.synthesis.gaussian import *\nfrom tests.synthesis.test_filters import within\n"
        "if __name__ == '__main__':\n" + textwrap.indent(TWO_RANKS, "    ")
    )
    subprocess.run([sys.executable, str(script), str(tmp_path / "store")], check=True, env=python_path())
    expected = predict(Gaussian(), tmp_path / "alone", 45, filters=within(2.0))
    store = TransitionStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.rows, expected.rows)
    assert store.metadata.extra == expected.metadata.extra


def test_the_range_is_that_of_the_data():
    rows = draw(100, 0).numpy()
    support = Support.of(ColumnStatistics.of(rows), SPEC, margin=0.0)
    assert Filters(support).passes(torch.from_numpy(rows))[1] == [100, 0, 0]
