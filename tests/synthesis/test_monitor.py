"""The monitor looks while a diffusion model trains, and takes no more of its time than it may."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_synther.data.datamodules import RowData
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.synthesis import monitor
from lightning_synther.synthesis.monitor import FidelityMonitor
from lightning_synther.transition import TransitionSpec
from tests.agents.tiny import trainer

SPEC = TransitionSpec(observation_dim=2, action_dim=1, discount=0.99)


@pytest.fixture
def stores(tmp_path):
    for seed, name in enumerate(("real", "heldout")):
        path = tmp_path / name
        with StoreWriter(path, SPEC, 64, seed=0, producer="test", fingerprint="") as writer:
            writer.write(0, torch.randn(64, SPEC.dim, generator=torch.Generator().manual_seed(seed)))
            writer.commit()
    return TransitionStore.open(tmp_path / "real"), TransitionStore.open(tmp_path / "heldout")


def train(stores, monitor, max_steps=20, **options):
    torch.manual_seed(0)
    model = LatentDiffusion(
        spec=SPEC.to_dict(),
        width=8,
        num_layers=1,
        sampler="dpmpp_2m_sde",
        num_sampling_steps=2,
        sigma_min=0.1,
    )
    real, heldout = stores
    model.fit_normalizer(real.rows)
    data = RowData(str(real.path), heldout=None if heldout is None else str(heldout.path), batch_size=8)
    callbacks = [] if monitor is None else [monitor]
    validations = {"val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    trainer(max_steps, callbacks=callbacks, **validations, **options).fit(model, data)
    return model


class Slow(FidelityMonitor):
    """Looks that take ``seconds`` of a clock on which an update takes one, and show nothing."""

    now, seconds = 0.0, 0.0

    def on_train_batch_start(self, *_):
        self.now += 1

    def _look(self, trainer, model):
        self.steps = [*getattr(self, "steps", []), trainer.global_step]
        self.now += self.seconds


@pytest.mark.parametrize(
    ("seconds", "steps"), [(60.0, [2]), (1.0, [2, 20, 30, 40, 50, 60]), (0.1, list(range(2, 62, 2)))]
)
def test_looks_after_the_first_stay_within_their_share(stores, monkeypatch, seconds, steps):
    watch = Slow(*stores, max_share=0.1)
    watch.seconds = seconds
    monkeypatch.setattr(monitor, "time", SimpleNamespace(monotonic=lambda: watch.now))
    train(stores, watch, max_steps=60)
    assert watch.steps == steps


def test_without_held_out_rows_it_looks_where_a_validation_was_due_and_changes_nothing(stores):
    real, _ = stores
    watch = Slow(real, None, max_share=1.0)
    train((real, None), watch, max_steps=7)
    assert watch.steps == [2, 4, 6]
    watch = Slow(real, None, max_share=1.0)
    train((real, None), watch, max_steps=7, limit_val_batches=0)
    assert not hasattr(watch, "steps")
    watched = train((real, None), FidelityMonitor(real, None, num_transitions=20, max_share=1.0), 6)
    alone = train((real, None), None, 6)
    assert all(map(torch.equal, watched.state_dict().values(), alone.state_dict().values()))


def test_without_a_bound_every_validation_is_looked_at_and_nothing_changes(stores, tmp_path):
    logger = TensorBoardLogger(tmp_path)
    watched = train(stores, FidelityMonitor(*stores, num_transitions=20, max_share=1.0), 6, logger=logger)
    alone = train(stores, None, 6)
    assert all(map(torch.equal, watched.state_dict().values(), alone.state_dict().values()))
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Scalars("fidelity/ks_mean")] == [2, 4, 6]
    assert [event.step for event in events.Images("panels/1_marginals")] == [2, 4, 6]
