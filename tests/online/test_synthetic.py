"""Synthetic replay in the online loop: when it is made, from what, and how batches are composed of it."""

import lightning.pytorch as pl
import pytest
import torch

from lightning_synther.agents import SAC
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.errors import ConfigError
from lightning_synther.online.synthetic import OnlineSynthERData, Synthesis
from tests.agents.tiny import trainer as quiet_trainer

ENV = {"task": "cartpole_balance", "observation": "states", "time_limit": 0.2}  # 10 agent steps an episode


class Marked:
    """Synthetic transitions whose reward is the number of agent steps after which they were made."""

    def __init__(self, folder, count=40):
        self.folder, self.count, self.calls, self.forgotten = folder, count, [], []

    def __call__(self, real):
        spec, num_steps = real.spec, real.num_steps
        self.calls.append((num_steps, real.previous, len(real.rows), spec))
        made = torch.zeros(self.count, spec.dim)
        made[:, spec.fields["reward"]] = num_steps
        path = self.folder / str(num_steps)
        with StoreWriter(path, spec, self.count, seed=0, producer="test", fingerprint="") as writer:
            writer.write(0, made)
            writer.commit()
        return Synthesis(path, {"loss": float(num_steps)})

    def open(self, num_steps):
        return TransitionStore.open(self.folder / str(num_steps))

    def forget(self, before):
        self.forgotten.append(before)


class Batches(pl.Callback):
    """Keeps the rewards of every batch."""

    def __init__(self):
        self.rewards = []

    def on_train_batch_start(self, trainer, module, batches, index):
        self.rewards += [(batch.reward[:, 0], batch.discount[:, 0]) for batch in batches]


def fit(tmp_path, max_steps=60, **options):
    settings = {"start_steps": 20, "batch_size": 8, "updates_per_step": 4, "update_to_data_ratio": 2}
    data = OnlineSynthERData(env=ENV, resynthesise_every=10, **(settings | options))
    data.resynthesise = Marked(tmp_path)
    agent = SAC(**data.agent_arguments(), hidden_dim=8)
    seen = Batches()
    trainer = quiet_trainer(max_steps, callbacks=[seen])
    trainer.fit(agent, data)
    return data, seen.rewards


def test_batches_hold_real_rows_and_then_the_latest_synthetic_ones(tmp_path):
    data, rewards = fit(tmp_path)
    assert [call[:3] for call in data.resynthesise.calls] == [
        (22, None, 22),
        (30, 22, 30),
        (40, 30, 40),
        (50, 40, 50),
    ]
    assert data.resynthesise.calls[0][3].discount == 0.99
    steps = [20 + 2 * (index // 4 + 1) for index in range(60)]
    made = [max(step for step in (22, 30, 40, 50) if step <= now) for now in steps]
    for (reward, discount), mark in zip(rewards, made, strict=True):
        assert (reward[:4] < 3).all(), "real rewards are at most 2"
        assert (reward[4:] == mark).all()
        assert torch.allclose(discount, torch.tensor(0.99))
    assert [figures["loss"] for figures in data.results()["resyntheses"]] == [22, 30, 40, 50]


@pytest.mark.parametrize(("ratio", "num_synthetic"), [(0.0, 0), (0.3, 2), (1.0, 8)])
def test_the_share_is_truncated_to_whole_transitions(tmp_path, ratio, num_synthetic):
    _, rewards = fit(tmp_path, max_steps=8, ratio=ratio)
    assert all(int((reward == 22).sum()) == num_synthetic for reward, _ in rewards)


def test_before_the_first_time_batches_are_real(tmp_path):
    data, rewards = fit(tmp_path, max_steps=16, start_steps=11)
    assert [call[0] for call in data.resynthesise.calls] == [13]
    later, _ = fit(tmp_path / "later", max_steps=8, start_steps=2)
    assert later.resynthesise.calls == []
    assert len(rewards) == 16


def test_what_is_needed_is_asked_for():
    with pytest.raises(ConfigError, match=r"data\.ratio is 2"):
        OnlineSynthERData(env=ENV, ratio=2.0)
    data = OnlineSynthERData(env=ENV, updates_per_step=8)
    trainer = pl.Trainer(accelerator="cpu", max_steps=8, logger=False, enable_checkpointing=False)
    with pytest.raises(ConfigError, match="does not know how to make synthetic transitions"):
        trainer.fit(SAC(**data.agent_arguments(), hidden_dim=8), data)
