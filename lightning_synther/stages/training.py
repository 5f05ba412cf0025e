"""One Trainer call of a stage: the Trainer that it gets, and how it resumes, ends and reports."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_synther.errors import ConfigError
from lightning_synther.seeding import derive_seed
from lightning_synther.stages.callbacks import (
    DescribeCheckpoint,
    SeedEveryStep,
    UpdatesProgressBar,
    last_checkpoint,
)
from lightning_synther.stages.config import StageTraining
from lightning_synther.stages.precision import resolve_precision
from lightning_synther.stages.record import Stage

log = logging.getLogger(__name__)

TENSORBOARD = "tensorboard"


def is_rank_zero() -> bool:
    """Whether this process writes what is written once; known before any process group exists."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def barrier() -> None:
    """Wait for the other ranks, where there are any yet."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def ensure(stage: Stage, build: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Bring ``stage`` to *finished* and return its results: reuse, resume or rebuild, and say which and why.

    Runs on every rank; only rank zero writes the record.
    """
    status = stage.status
    if status == "finished":
        log.info("%s: finished earlier, reused", stage.name)
        return stage.results
    if status == "stale":
        log.info("%s: rebuilt, because these changed: %s", stage.name, "; ".join(stage.changes()))
        if is_rank_zero():
            stage.discard()
    elif status == "interrupted":
        log.info("%s: was interrupted, goes on", stage.name)
    else:
        log.info("%s: starts", stage.name)
    if not is_rank_zero():
        build()
        barrier()
        return stage.results
    stage.begin()
    with stage.timed():
        results = build()
    stage.finish(results)
    barrier()
    log.info("%s: finished in %.0f s", stage.name, stage.seconds)
    return stage.results


def ensure_on_rank_zero(stage: Stage, build: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """As `ensure`, for work that one process does alone; the others wait for its record."""
    if is_rank_zero():
        return ensure(stage, build)
    while stage.status != "finished":
        time.sleep(0.5)
    barrier()
    return stage.results


@dataclass(frozen=True)
class TrainerFactory:
    """Makes the Trainer of each stage from what the stages share.

    Attributes:
        run_dir: run directory; TensorBoard files go to ``<run_dir>/tensorboard/<stage>``.
        seed: the run's seed.
        shared: Trainer arguments of every stage (accelerator, devices, strategy, ...).
    """

    run_dir: Path
    seed: int
    shared: Mapping[str, Any]

    @property
    def _accelerator(self) -> str:
        return str(self.shared.get("accelerator", "auto"))

    def logger(self, stage: str) -> TensorBoardLogger:
        """TensorBoard logger of one stage."""
        return TensorBoardLogger(save_dir=self.run_dir, name=TENSORBOARD, version=stage)

    def callbacks(self, stage: Stage, updates_per_step: int, checkpoint_every: int) -> list[Callback]:
        """What every training has."""
        callbacks: list[Callback] = [
            SeedEveryStep(self.seed, stage.name),
            DescribeCheckpoint(),
            last_checkpoint(stage.directory, checkpoint_every),
        ]
        if self.shared.get("enable_progress_bar") is not False:
            callbacks.append(UpdatesProgressBar(stage.name, updates_per_step))
        return callbacks

    def trainer(self, stage: Stage, training: StageTraining, callbacks: list[Callback]) -> pl.Trainer:
        """Trainer that fits ``training.max_steps`` updates."""
        if training.max_steps % training.updates_per_step:
            raise ConfigError(
                f"{stage.name}: training.max_steps {training.max_steps} is not a multiple of "
                f"training.updates_per_step {training.updates_per_step}: change one of them"
            )
        kwargs = dict(self.shared)
        if training.precision is not None:
            kwargs["precision"] = resolve_precision(training.precision, self._accelerator)
        validates = training.validate_every > 0
        interval = max(1, training.validate_every // training.updates_per_step)
        return pl.Trainer(
            default_root_dir=self.run_dir,
            logger=self.logger(stage.name),
            callbacks=self.callbacks(stage, training.updates_per_step, training.checkpoint_every) + callbacks,
            max_steps=training.max_steps,
            val_check_interval=interval if validates else None,
            check_val_every_n_epoch=None if validates else 1,
            limit_val_batches=None if validates else 0,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            log_every_n_steps=1,
            **kwargs,
        )

    def plain_trainer(self, stage: str, precision: str | None = None, **kwargs: Any) -> pl.Trainer:
        """Trainer for validation, test and prediction."""
        shared = dict(self.shared)
        if precision is not None:
            shared["precision"] = resolve_precision(precision, self._accelerator)
        return pl.Trainer(
            default_root_dir=self.run_dir,
            logger=self.logger(stage),
            enable_model_summary=False,
            enable_checkpointing=False,
            **{**shared, **kwargs},
        )


def fit(
    stage: Stage, trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule
) -> pl.LightningModule:
    """Train from the last checkpoint, if there is one, to the end, and write ``final.ckpt``."""
    with interruptible(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=stage.last_checkpoint)
    save_final(trainer, stage.final_checkpoint)
    return module


def save_final(trainer: pl.Trainer, path: Path) -> None:
    """Write the trained module without what only a resumed training needs."""
    partial = path.with_name(path.name + ".partial")
    trainer.save_checkpoint(partial)
    if trainer.is_global_zero:
        checkpoint = torch.load(partial, map_location="cpu", weights_only=True)
        for key in ("optimizer_states", "lr_schedulers", "loops", "callbacks"):
            checkpoint.pop(key, None)
        torch.save(checkpoint, partial)
        partial.replace(path)
    trainer.strategy.barrier()


class interruptible:  # noqa: N801 - reads as a word in a with statement
    """Turn the ``exit(1)`` that Lightning makes of Ctrl-C back into KeyboardInterrupt (exit status 130)."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is SystemExit and self.trainer.interrupted:
            raise KeyboardInterrupt


def stage_seed(seed: int, stage: str) -> int:
    """Seed for building a stage's module: the initial weights depend on the run's seed and the stage alone."""
    return derive_seed(seed, stage, "init") % 2**32
