"""How long a training takes, beside its updates."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lightning_synther.evaluation.board import SectionLogger


class LogTime(Callback):
    """Wall-clock beside updates, so that curves can be read over either, also after a resumption.

    Logs ``time/updates_per_second``, without the time that validations take, and ``time/training_hours``, with
    it and over all resumptions: the hours that led to this update, which its checkpoint carries. Work that an
    interruption lost counts in neither. A resumed training makes its updates anew, so TensorBoard is told to
    forget what was written of them before.

    Args:
        every: updates between two records.
    """

    def __init__(self, every: int = 100) -> None:
        self.every = every
        self._seconds = 0.0  # until the last record
        self._since, self._step = time.monotonic(), 0  # of that record
        self._pause, self._pause_since = 0.0, self._since  # validations after it

    def state_dict(self) -> dict[str, Any]:
        """The time until now goes into the checkpoint."""
        return {"seconds": self._seconds + time.monotonic() - self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from a checkpoint."""
        self._seconds = state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since, self._step, self._pause = time.monotonic(), trainer.global_step, 0.0
        for logger in trainer.loggers:
            if isinstance(logger, SectionLogger):
                logger.forget(trainer.global_step + 1 if trainer.global_step else 0)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of the updates."""
        self._pause_since = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on."""
        self._pause += time.monotonic() - self._pause_since

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """A batch holds several updates: record at or after each multiple."""
        if trainer.global_step // self.every > self._step // self.every:
            self._record(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the last updates too."""
        if trainer.global_step > self._step:
            self._record(trainer)

    def _record(self, trainer: pl.Trainer) -> None:
        now = time.monotonic()
        updates, spent = trainer.global_step - self._step, now - self._since
        self._seconds += spent
        figures = {
            "time/updates_per_second": updates / max(spent - self._pause, 1e-9),
            "time/training_hours": self._seconds / 3600,
        }
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)
        self._since, self._step, self._pause = now, trainer.global_step, 0.0
