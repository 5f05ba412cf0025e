"""``last.ckpt`` is written as often as the settings say, whatever ``updates_per_step``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lightning_synther.__main__ import main
from lightning_synther.data.datamodules import RowData
from lightning_synther.data.rows import write_rows
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.stages.config.sections import StageTraining
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.transition import TransitionSpec
from tests.stages.test_single_models import config

SPEC = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)
ROWS = torch.randn(64, SPEC.dim, generator=torch.Generator().manual_seed(0))
TINY = {"width": 8, "num_layers": 1}


class Saves(Callback):
    """The updates after which a checkpoint was written."""

    def __init__(self) -> None:
        self.updates: list[int] = []

    def on_save_checkpoint(self, trainer: pl.Trainer, *_: Any) -> None:
        self.updates.append(trainer.global_step)


@pytest.mark.parametrize(
    ("updates_per_step", "every", "saved"),
    [
        (1, 20, [20, 40, 60, 80]),
        (20, 50, [40, 80]),
        (16, 50, [48]),
        (16, 3, [16, 32, 48, 64, 80]),
        (8, 0, []),
    ],
)
def test_no_checkpoint_is_older_than_it_may_be(tmp_path: Path, updates_per_step, every, saved) -> None:
    stage = Stage(tmp_path, "diffusion", {})
    stage.begin()
    training = StageTraining(
        max_steps=80, batch_size=4, updates_per_step=updates_per_step, checkpoint_every=every
    )
    saves = Saves()
    factory = TrainerFactory(tmp_path, 0, {"accelerator": "cpu", "devices": 1}, progress=False)
    data = RowData.of_rows(ROWS, batch_size=4, updates_per_step=updates_per_step)
    factory.trainer(stage, training, [saves]).fit(LatentDiffusion(spec=SPEC.to_dict(), **TINY), data)
    assert saves.updates == saved


def test_nor_is_that_of_a_model_without_stages_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(tmp_path / "rows", ROWS, SPEC)
    argv = config(
        tmp_path / "alone.yaml",
        {"class_path": "lightning_synther.LatentDiffusion", "init_args": TINY},
        {
            "class_path": "lightning_synther.RowData",
            "init_args": {"store": str(tmp_path / "rows"), "batch_size": 4, "updates_per_step": 4},
        },
        checkpoint_every=7,
    )
    assert main([*argv, "--trainer.max_steps=12", "--trainer.val_check_interval=1"]) == 0
    assert "trainer.val_check_interval is 1, but there is nothing to validate on" in caplog.text
    last = torch.load(tmp_path / "alone" / "diffusion" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 12
