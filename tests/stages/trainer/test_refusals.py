"""What Lightning refuses is one sentence; what it does not refuse but we break keeps its traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_synther.errors import ConfigError
from lightning_synther.stages.trainer.callbacks import last_checkpoint
from lightning_synther.stages.trainer.refusals import trainer_refusals, unknown_metrics

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_steps": 4,
    "limit_val_batches": 0,
}


@pytest.mark.parametrize(
    ("shared", "sentence"),
    [
        ({"accelerator": "gpuu"}, r"Trainer of trainer\.accelerator=gpuu \(You selected an invalid"),
        ({"accelerator": "tpu"}, r"Trainer of trainer\.accelerator=tpu \(.*torch_xla"),
        (
            {"accelerator": "cpu", "devices": "many"},
            r"trainer\.devices=many \(.*an int > 0\): change or remove",
        ),
        ({"accelerator": "auto", "num_nodes": 0}, r"Trainer of trainer\.num_nodes=0 \("),
    ],
)
def test_settings_that_make_no_trainer(shared: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence), trainer_refusals(shared):
        pl.Trainer(logger=False, enable_checkpointing=False, **shared)


def fit(*callbacks: Callback, checkpoints: bool = False) -> None:
    trainer = pl.Trainer(**QUIET, callbacks=list(callbacks), enable_checkpointing=checkpoints)
    trainer.fit(BoringModel())


def test_a_metric_that_nobody_logs() -> None:
    with (
        pytest.raises(
            ConfigError, match=r"^trainer\.callbacks: Early stopping conditioned on metric `x` which"
        ),
        unknown_metrics(),
    ):
        fit(EarlyStopping("x", check_on_train_epoch_end=True))


def test_a_defect_is_not_taken_for_a_refusal() -> None:
    class Defect(Callback):
        def on_train_start(self, *_: Any) -> None:
            raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match=r"^ours$"), unknown_metrics():
        fit(Defect())


@pytest.mark.parametrize(("every", "kept"), [(0, []), (3, ["last.ckpt"])])
def test_checkpoint_every_0_keeps_none(every: int, kept: list[str], tmp_path: Path) -> None:
    fit(last_checkpoint(tmp_path, every, updates_per_step=1), checkpoints=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
