"""Golden case b6_split_samples: how SynthER splits sampled rows into the arrays of its files."""

import numpy as np
import pytest

from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.data.synther_npz import export_npz
from lightning_synther.transition import TransitionSpec


@pytest.mark.parametrize("case", ["term_thr", "noterm"])
def test_split_of_samples(golden, tmp_path, case):
    file = golden("b6_split_samples")
    terminal = case == "term_thr"
    samples = file["in.samples"] if terminal else file["in.samples"][:, :-1]
    spec = TransitionSpec(file.hp["obs_dim"], file.hp["act_dim"], 0.99, terminal=terminal)
    with StoreWriter(tmp_path / "store", spec, len(samples), seed=0, producer="", fingerprint="") as writer:
        writer.write(0, samples)
        exported = np.load(export_npz(writer.commit(), tmp_path / "samples.npz"))
    names = [key.rsplit(".", 1)[1] for key in file.keys() if key.startswith(f"out.{case}.")]  # noqa: SIM118
    assert len(names) == 4 + terminal
    for name in names:
        np.testing.assert_array_equal(exported[name], file[f"out.{case}.{name}"])
        assert exported[name].shape == file[f"out.{case}.{name}"].shape
