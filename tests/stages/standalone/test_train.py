"""One module trained in one call: the same as a Trainer, quiet, and not twice."""

from __future__ import annotations

import json
import logging
import warnings

import pytest
import torch

from lightning_synther.agents.td3_bc_module import TD3BC
from lightning_synther.data.datamodules import ReplayData, RowData
from lightning_synther.data.rows import write_rows
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.stages.standalone.train import train
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.99)


@pytest.fixture
def store(tmp_path):
    torch.manual_seed(0)
    return str(write_rows(tmp_path / "store", torch.rand(100, SPEC.dim), SPEC).path)


def model(width: int = 16, seed: int = 0) -> LatentDiffusion:
    torch.manual_seed(seed)
    return LatentDiffusion(spec=SPEC.to_dict(), width=width, num_layers=1, log_every_n_updates=2)


def test_it_trains_so_many_updates_and_keeps_the_curves(store, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = train(model(), RowData(store, batch_size=8), 10)
    assert not trained.module.training
    assert [step for step, _ in trained.curves["train/loss"]] == [2, 4, 6, 8, 10]
    assert trained.module.normalizer.fitted
    said = capfd.readouterr()
    assert not said.out
    assert not said.err


def test_an_agent_trains_too(store):
    torch.manual_seed(0)
    agent = TD3BC(observation_dim=3, action_dim=2, hidden_dim=8, log_every_n_updates=5)
    trained = train(agent, ReplayData(real=store, mixing="real", batch_size=8), 20)
    assert trained.module.num_updates == 20
    assert len(trained.curves["train/critic_loss"]) == 4


def test_the_same_seeds_give_the_same_weights(store):
    first, second = (train(model(), RowData(store, batch_size=8), 6).module.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train(model(), RowData(store, batch_size=8), 6, seed=1).module.state_dict()
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_what_is_kept_is_found_again(store, tmp_path, monkeypatch):
    path = tmp_path / "kept" / "model.ckpt"
    first = train(model(), RowData(store, batch_size=8), 6, path=path)
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", None)  # it is not trained again
    second = train(model(), RowData(store, batch_size=8), 6, path=path)
    assert second.curves == first.curves
    sample = first.module.sample(4, seed=0)
    torch.testing.assert_close(second.module.sample(4, seed=0), sample)
    torch.testing.assert_close(load_checkpoint(path).sample(4, seed=0), sample)


@pytest.mark.parametrize("changed", ["width", "num_updates", "batch_size", "rows", "weights"])
def test_a_change_trains_again_and_is_named(store, tmp_path, changed, caplog):
    path = tmp_path / "model.ckpt"
    train(model(), RowData(store, batch_size=8), 6, path=path)
    if changed == "rows":
        write_rows(store, torch.rand(100, SPEC.dim), SPEC)
    with caplog.at_level(logging.INFO, logger="lightning_synther"):
        train(
            model(width=8 if changed == "width" else 16, seed=int(changed == "weights")),
            RowData(store, batch_size=4 if changed == "batch_size" else 8),
            4 if changed == "num_updates" else 6,
            path=path,
        )
    names = {
        "batch_size": "data",
        "rows": "data",
        "width": "width, initial weights",
        "weights": "initial weights",
    }
    name = names.get(changed, changed)
    assert f"model.ckpt is trained again, because these changed: {name}" in caplog.messages


def test_a_checkpoint_without_its_record_was_not_finished(store, tmp_path):
    path = tmp_path / "model.ckpt"
    train(model(), RowData(store, batch_size=8), 6, path=path)
    record = path.with_suffix(".json")
    content = json.loads(record.read_text())
    record.unlink()
    path.write_bytes(b"half")
    train(model(), RowData(store, batch_size=8), 6, path=path)
    assert json.loads(record.read_text())["inputs"] == content["inputs"]
    assert isinstance(load_checkpoint(path), LatentDiffusion)
