from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightning_synther.data.conditions import (
    available_conditions,
    condition_made_from,
    read_condition,
    read_conditions,
    write_condition,
)
from lightning_synther.data.datamodules import RowData
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.errors import DataError
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=2, action_dim=1, discount=0.99)


def store_of(path, num_rows=30):
    """Rows whose numbers are all their index."""
    rows = torch.arange(float(num_rows))[:, None].expand(-1, SPEC.dim)
    with StoreWriter(path, SPEC, num_rows, seed=0, producer="test", fingerprint="") as writer:
        writer.write(0, rows)
        return writer.commit()


def test_arrays_lie_beside_the_rows(tmp_path):
    store = store_of(tmp_path / "store")
    write_condition(store.path, "task_id", np.eye(30)[:, :4])
    write_condition(store.path, "curiosity", torch.arange(30.0), {"seed": 3})
    assert available_conditions(store.path) == ["curiosity", "task_id"]
    assert read_condition(store.path, "curiosity").shape == (30, 1)
    both, sizes = read_conditions(store.path, ["task_id", "curiosity"])
    assert both.shape == (30, 5)
    assert sizes == {"task_id": 4, "curiosity": 1}
    assert both[7, 4] == 7
    assert condition_made_from(store.path, "curiosity") == {"seed": 3}
    assert condition_made_from(store.path, "task_id") is None
    assert condition_made_from(store.path, "reward") is None
    write_condition(store.path, "curiosity", torch.zeros(30))
    assert read_condition(store.path, "curiosity").abs().sum() == 0
    assert len(TransitionStore.open(store.path)) == 30
    assert not list(store.path.glob("**/*.partial"))


def test_batches_carry_each_record_s_own_condition(tmp_path):
    for name in ("train", "heldout"):
        store = store_of(tmp_path / name)
        write_condition(store.path, "half", torch.arange(30.0) / 2)
    data = RowData(
        str(tmp_path / "train"), str(tmp_path / "heldout"), 16, updates_per_step=2, conditions=["half"]
    )
    data.setup("validate")
    for batch in [*data.batches(range(3, 5)), *data.val_dataloader()]:
        assert batch.shape[1] == SPEC.dim + 1
        torch.testing.assert_close(batch[:, SPEC.dim], batch[:, 0] / 2)
    plain = RowData(str(tmp_path / "train"), batch_size=16)
    plain.setup("validate")
    assert torch.equal(plain.batches(range(3, 4))[0], data.batches(range(3, 4))[0][:, : SPEC.dim])


def test_a_missing_array_is_named_with_those_that_are_there(tmp_path):
    store = store_of(tmp_path / "store")
    write_condition(store.path, "task_id", torch.zeros(30))
    with pytest.raises(DataError, match=r"has no condition 'curiosty' \(it has: task_id\)"):
        read_condition(store.path, "curiosty")


@pytest.mark.parametrize("shape", [(29,), (30, 0), (30, 1, 1)])
def test_wrong_shapes_are_refused(tmp_path, shape):
    store = store_of(tmp_path / "store")
    with pytest.raises(DataError, match="holds 30 transitions: give one number, or one vector, for each"):
        write_condition(store.path, "c", torch.zeros(shape))


def test_values_that_are_not_finite_are_refused(tmp_path):
    store = store_of(tmp_path / "store")
    values = torch.zeros(30)
    values[3] = torch.nan
    with pytest.raises(DataError, match="has 1 rows that are not finite"):
        write_condition(store.path, "c", values)
    assert available_conditions(store.path) == []


@pytest.mark.parametrize("name", ["", "../rows", ".hidden"])
def test_names_that_are_paths_are_refused(tmp_path, name):
    store = store_of(tmp_path / "store")
    with pytest.raises(DataError, match="cannot be the name of a condition"):
        write_condition(store.path, name, torch.zeros(30))


def test_a_damaged_or_foreign_array_is_refused(tmp_path):
    store = store_of(tmp_path / "store")
    path = write_condition(store.path, "c", torch.zeros(30))
    save_file({"values": torch.zeros(20, 1)}, path)
    with pytest.raises(DataError, match="it belongs to another store"):
        read_condition(store.path, "c")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="is damaged or no array of conditions"):
        read_condition(store.path, "c")
