"""Callbacks that every stage's Trainer has: seeding, resuming, progress, self-describing checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lightning_synther.progress import Progress
from lightning_synther.seeding import derive_seed
from lightning_synther.stages.config.module import class_path
from lightning_synther.stages.trainer.checkpoints import save_module
from lightning_synther.synthesis.sample import Chunk, SynthesisData


class SeedEveryStep(Callback):
    """Seed torch's generators before each training batch from (seed, stage, rank, global_step).

    The noise of update k then depends on k alone: a run that was killed and resumed draws what the
    uninterrupted run drew, without generator states in the checkpoint.
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
        checkpoint["class_path"] = class_path(pl_module)


class KeepMetric(Callback):
    """The last value of a metric, kept in checkpoints: a Trainer that resumes at its last update logs none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._restored: float | None = None

    def value(self, trainer: pl.Trainer) -> float | None:
        """What was logged last, before an interruption too; None where nothing was."""
        logged = trainer.callback_metrics.get(self.name)
        return self._restored if logged is None else logged.item()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the metric."""
        checkpoint[self.name] = self.value(trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the metric."""
        self._restored = checkpoint.get(self.name)


class ShowProgress(Callback):
    """One line of `Progress` for a Trainer call: gradient updates in training, transitions in synthesis.

    Lightning's own bars count batches in epochs; our dataloaders never end, ``max_steps`` does.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start, or after a resumption go on, at the update that the module has reached."""
        if trainer.is_global_zero:
            self.progress = Progress(self.stage, trainer.max_steps, "updates", trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """A batch holds several updates."""
        if self.progress is not None:
            self.progress.update(trainer.global_step - self.progress.count)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start with the transitions that an interrupted call left."""
        data = getattr(trainer, "datamodule", None)
        if trainer.is_global_zero and isinstance(data, SynthesisData) and data.writer is not None:
            missing = data.writer.pending_chunks
            done = len(data.writer) - sum(data.chunk(index).num_rows for index in missing)
            self.progress = Progress(self.stage, len(data.writer), "transitions", done)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Every rank writes a chunk at a time."""
        if self.progress is not None and isinstance(batch, Chunk):
            done = self.progress.count + batch.num_rows * trainer.world_size
            self.progress.update(min(done, self.progress.total or done) - self.progress.count)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Also after an interruption."""
        if self.progress is not None:
            self.progress.close()
            self.progress = None


class KeepCheckpoints(Callback):
    """Keep the module as it is every ``every`` updates, in ``directory/updates_<n>.ckpt``.

    They hold no optimizer and no replay memory: enough to `test` and to export, not to resume.
    """

    def __init__(self, directory: Path, every: int) -> None:
        self.directory, self.every = directory, every
        self._kept = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A resumed training has kept what lies before."""
        self._kept = trainer.global_step // self.every

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """A batch holds several updates: keep the first state at or after each multiple."""
        kept = trainer.global_step // self.every
        if kept > self._kept and trainer.is_global_zero:
            save_module(pl_module, self.directory / f"updates_{trainer.global_step:08d}.ckpt")
        self._kept = kept


def last_checkpoint(directory: Path, every: int, updates_per_step: int) -> ModelCheckpoint:
    """Keep ``directory/last.ckpt`` at most ``every`` updates old; written atomically by Lightning.

    Lightning looks once a batch, and saves at whole multiples alone: ``every`` is rounded down to batches of
    ``updates_per_step`` updates, and is one batch where it is less.
    """
    if every > 0:  # 0: none
        every = max(1, every // updates_per_step) * updates_per_step
    return ModelCheckpoint(
        dirpath=directory,
        filename="last",
        monitor=None,
        save_top_k=1,
        every_n_train_steps=every,
        enable_version_counter=False,
    )
