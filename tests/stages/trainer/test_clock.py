"""Hours and updates a second, over an interruption; and no update twice in TensorBoard."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_synther.agents import BC
from lightning_synther.stages.config.sections import StageTraining
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer import clock
from lightning_synther.stages.trainer.training import TrainerFactory
from tests.agents.tiny import ACTION_DIM, loader


class Clock:
    """A second an update, and ten hours between two processes."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


class Ticks(Callback):
    def __init__(self, time, stop=None):
        self.time, self.stop = time, stop

    def on_train_batch_start(self, trainer, *_):
        self.time.now += 1
        if trainer.global_step == self.stop:
            raise RuntimeError("interrupted")


@pytest.fixture
def time(monkeypatch):
    time = Clock()
    monkeypatch.setattr(clock, "time", time)
    return time


def fit(factory, stage, time, stop=None):
    torch.manual_seed(0)
    agent = BC(
        observation="states", observation_dim=3, action_dim=ACTION_DIM, hidden_dim=8, log_every_n_updates=1
    )
    trainer = factory.trainer(stage, StageTraining(max_steps=450, checkpoint_every=150))
    trainer.callbacks.insert(0, Ticks(time, stop))
    trainer.fit(agent, loader(agent, shape=(3,)), ckpt_path=stage.last_checkpoint)


def test_hours_count_what_led_to_an_update_and_each_update_is_there_once(tmp_path, time):
    factory = TrainerFactory(tmp_path, 0, {"accelerator": "cpu"}, progress=False)
    stage = Stage(tmp_path, "agent", {})
    stage.begin()
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(factory, stage, time, stop=260)
    time.now += 36_000
    fit(factory, stage, time)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "agent"), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("agent/train/actor_bc_loss")] == list(range(1, 451))
    hours = events.Scalars("agent/time/training_hours")
    assert [event.step for event in hours] == [100, 200, 300, 400, 450]
    assert [event.value * 3600 for event in hours] == pytest.approx([100, 200, 300, 400, 450], abs=2)
    rates = [event.value for event in events.Scalars("agent/time/updates_per_second")]
    assert rates == pytest.approx([1.0] * 5, abs=0.02)
