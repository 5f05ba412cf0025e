"""Lightning callbacks that every stage's Trainer has: seeding, resuming, progress, self-describing checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar

from lightning_synther.seeding import derive_seed


class SeedEveryStep(Callback):
    """Seed torch's generators before each training batch from (seed, stage, rank, global_step).

    The noise of update k then depends on k alone: a run that was killed and resumed draws what the uninterrupted run
    drew, without generator states in the checkpoint.
    """

    def __init__(self, seed: int, stage: str) -> None:
        self.seed, self.stage = seed, stage

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Seed for this batch."""
        torch.manual_seed(derive_seed(self.seed, self.stage, trainer.global_rank, trainer.global_step))


class DescribeCheckpoint(Callback):
    """Write the module's class into its checkpoints, so that a file alone tells how to load it."""

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the import path of the module's class."""
        cls = type(pl_module)
        checkpoint["class_path"] = f"{cls.__module__}.{cls.__qualname__}"


class UpdatesProgressBar(TQDMProgressBar):
    """Progress over the whole training: our dataloaders never end, `max_steps` does, so the total comes from there.

    Each training batch holds ``updates_per_step`` gradient updates.
    """

    def __init__(self, stage: str, updates_per_step: int, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=max(1, refresh_rate // updates_per_step), leave=True)
        self.stage, self.updates_per_step = stage, updates_per_step

    @property
    def total_train_batches(self) -> int | float:
        """Number of training batches until ``max_steps``."""
        steps = self.trainer.max_steps
        return steps // self.updates_per_step if steps > 0 else super().total_train_batches

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start (or, after a resume, go on) at the update that the module has reached."""
        super().on_train_epoch_start(trainer, *args)
        done = trainer.global_step // self.updates_per_step
        self.train_progress_bar.initial = done
        self.train_progress_bar.n = done
        self.train_progress_bar.set_description(self.stage)

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Without Lightning's version number, which says nothing here."""
        metrics = super().get_metrics(*args, **kwargs)
        metrics.pop("v_num", None)
        return metrics


def last_checkpoint(directory: Path, every: int) -> ModelCheckpoint:
    """Keep ``directory/last.ckpt`` at most ``every`` updates old; written atomically by Lightning."""
    return ModelCheckpoint(
        dirpath=directory,
        filename="last",
        monitor=None,
        save_top_k=1,
        every_n_train_steps=every,
        enable_version_counter=False,
    )
