"""One Trainer call of a stage: the Trainer that it gets, and how it resumes, ends and reports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import instantiate_class

from lightning_synther.evaluation.board import SectionLogger
from lightning_synther.seeding import derive_seed
from lightning_synther.stages.config.sections import StageTraining
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer.callbacks import (
    DescribeCheckpoint,
    KeepCheckpoints,
    SeedEveryStep,
    ShowProgress,
    last_checkpoint,
)
from lightning_synther.stages.trainer.clock import LogTime
from lightning_synther.stages.trainer.precision import resolve_precision

log = logging.getLogger(__name__)

#: Folder of a run's event files.
TENSORBOARD = "tensorboard"
#: Lightning's names for its default precision.
FLOAT32 = ("32", "32-true")


@dataclass(frozen=True)
class TrainerFactory:
    """Makes the Trainer of each stage from what the stages share.

    Attributes:
        run_dir: run directory; TensorBoard files go to ``<run_dir>/tensorboard/<stage>``.
        seed: the run's seed.
        shared: Trainer arguments of every stage (accelerator, devices, strategy, ...).
        progress: whether to show how far a stage is.
    """

    run_dir: Path
    seed: int
    shared: Mapping[str, Any]
    progress: bool = True

    @property
    def device(self) -> torch.device:
        """Where rank zero's modules go."""
        kept = {key: value for key, value in self.settings().items() if key in ("accelerator", "devices")}
        if isinstance(kept.get("devices"), int):
            kept["devices"] = 1
        trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, **kept)
        return trainer.strategy.root_device

    @property
    def precision(self) -> str | None:
        """What a stage runs in that names no precision of its own; None where that is Lightning's default, float32."""
        precision = self.shared.get("precision")
        return None if precision is None or str(precision) in FLOAT32 else str(precision)

    def settings(self, precision: str | None = None) -> dict[str, Any]:
        """Arguments of a Trainer; a strategy or an accelerator of the config is built anew for each."""
        settings = {key: instantiate(value) for key, value in self.shared.items()}
        if precision is not None:
            accelerator = settings.get("accelerator", "auto")
            settings["precision"] = resolve_precision(precision, str(accelerator))
        return {**settings, "enable_progress_bar": False}

    def logger(self, stage: str) -> SectionLogger:
        """TensorBoard logger of one stage; agents share a section, in which their curves lie over each other."""
        name = stage.split("/")[1] if "/" in stage else stage  # as in agent/resynthesis/00010000
        section = "agent" if name.startswith(("agent", "evaluation")) else name
        return SectionLogger(self.run_dir, TENSORBOARD, stage, section)

    def callbacks(
        self, stage: Stage, checkpoint_every: int, updates_per_step: int, keep_every: int = 0
    ) -> list[Callback]:
        """What every training has; with ``keep_every``, checkpoints that are kept."""
        return [
            SeedEveryStep(self.seed, stage.name),
            DescribeCheckpoint(),
            LogTime(),
            last_checkpoint(stage.directory, checkpoint_every, updates_per_step),
            *([KeepCheckpoints(stage.directory, keep_every)] if keep_every else []),
            *self.show_progress(stage.name),
        ]

    def show_progress(self, stage: str) -> list[Callback]:
        """The progress of a stage, unless the user wants none."""
        return [ShowProgress(stage)] if self.progress else []

    def train(
        self,
        stage: Stage,
        training: StageTraining,
        make: Callable[[], tuple[pl.LightningModule, pl.LightningDataModule]],
        watchers: Sequence[Callback] = (),
    ) -> None:
        """Train what ``make`` makes: a module whose initial weights depend on the run's seed and the stage alone."""
        seed_everything(stage_seed(self.seed, stage.name), verbose=False)
        module, data = make()
        fit(stage, self.trainer(stage, training, watchers), module, data)

    def trainer(self, stage: Stage, training: StageTraining, watchers: Sequence[Callback] = ()) -> pl.Trainer:
        """Trainer that fits ``training.max_steps`` updates."""
        settings = self.settings(training.precision)
        validates = training.validate_every > 0
        interval = max(1, training.validate_every // training.updates_per_step)
        return pl.Trainer(
            default_root_dir=self.run_dir,
            logger=self.logger(stage.name),
            callbacks=[
                *self.callbacks(stage, training.checkpoint_every, training.updates_per_step),
                *watchers,
            ],
            max_steps=training.max_steps,
            val_check_interval=interval if validates else None,
            check_val_every_n_epoch=None if validates else 1,
            limit_val_batches=None if validates else 0,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            log_every_n_steps=1,
            **settings,
        )

    def plain_trainer(self, stage: str, precision: str | None = None, **kwargs: Any) -> pl.Trainer:
        """Trainer for validation, test and prediction."""
        return pl.Trainer(
            default_root_dir=self.run_dir,
            logger=self.logger(stage),
            enable_model_summary=False,
            enable_checkpointing=False,
            **{**self.settings(precision), **kwargs},
        )


def instantiate(value: Any) -> Any:
    """What a parsed config describes by ``class_path`` and ``init_args``; anything else as it is."""
    if isinstance(value, list):
        return [instantiate(item) for item in value]
    return instantiate_class((), value) if isinstance(value, dict) and "class_path" in value else value


def fit(
    stage: Stage, trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule
) -> pl.LightningModule:
    """Train from the last checkpoint, if there is one, to the end, and write ``final.ckpt``."""
    with interruptible(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=stage.last_checkpoint)
    if trainer.global_step < trainer.max_steps:
        log.info(
            "%s: a callback ended it after %d of %d updates",
            stage.name,
            trainer.global_step,
            trainer.max_steps,
        )
    save_final(trainer, stage.final_checkpoint)
    return module


def save_final(trainer: pl.Trainer, path: Path) -> None:
    """Write the trained module without what only a resumed training needs."""
    partial = path.with_name(path.name + ".partial")
    trainer.save_checkpoint(partial)
    if trainer.is_global_zero:
        checkpoint = torch.load(partial, map_location="cpu", weights_only=True)
        data_state = type(
            getattr(trainer, "datamodule", None)
        ).__qualname__  # an online run's replay memory, say
        for key in ("optimizer_states", "lr_schedulers", "loops", "callbacks", data_state):
            checkpoint.pop(key, None)
        torch.save(checkpoint, partial)
        partial.replace(path)
    trainer.strategy.barrier()


class interruptible:
    """Turn the ``exit(1)`` that Lightning makes of Ctrl-C back into KeyboardInterrupt (exit status 130).

    Lower case, as it reads as a word in a with statement.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is SystemExit and self.trainer.interrupted:
            raise KeyboardInterrupt


def stage_seed(seed: int, stage: str) -> int:
    """Seed for building a stage's module: initial weights depend on the run's seed and the stage alone."""
    return derive_seed(seed, stage, "init") % 2**32
