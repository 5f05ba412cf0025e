"""The forms in which transitions are given, as flat rows."""

import numpy as np
import pytest
import torch

from lightning_synther.data.row_forms import flat_rows
from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.errors import DataError


def arrays(**others):
    """Six rows without next_observations; nothing ends for good."""
    row = np.arange(6, dtype=np.float32)
    given = {"observations": row[:, None], "actions": row[:, None] / 10, "rewards": row, "terminals": 0 * row}
    return given | others


def test_a_mapping_may_number_its_episodes():
    given = arrays(episodes=[0, 0, 0, 7, 7, 7])
    spec, rows = flat_rows(given)
    assert spec.unflatten(rows).observation[:, 0].tolist() == [0, 1, 3, 4]  # an episode's last row goes
    assert torch.equal(rows, flat_rows(StateDataset.from_arrays(**given))[1])


def test_a_misspelt_array_is_named_with_those_that_are_known():
    with pytest.raises(
        DataError, match=r"have timeout, which mean .* observations, .* timeouts, .* episodes"
    ):
        flat_rows(arrays(timeout=np.zeros(6)))
    with pytest.raises(DataError, match="transitions lacks terminals"):
        flat_rows({name: values for name, values in arrays().items() if name != "terminals"})


def test_d4rls_other_entries_are_left_alone():
    timeouts = np.arange(6) % 3 == 2
    beside = {"infos/qpos": np.zeros((6, 2)), "metadata/algorithm": b"SAC"}
    assert len(flat_rows(arrays(timeouts=timeouts, **beside))[1]) == 4
