"""How every agent trains: updates under a Trainer or by hand, logging, and guards against divergence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_synther.agents.optimization import (
    average_gradients,
    average_over_ranks,
    backward,
    check_precision,
)
from lightning_synther.agents.scoring import ScoredAgent
from lightning_synther.bounds import check_counts
from lightning_synther.diffusion.optimization import LRSchedule, lr_factor
from lightning_synther.errors import ConfigError, SyntherError
from lightning_synther.transition import Transition


class Learner(ScoredAgent):
    """Gradient updates on transitions, each counted once in Lightning's ``global_step``.

    A subclass implements `make_optimizers`, `draw` and `step`, and may `check` batches.

    Args:
        log_every_n_updates: updates between two records of the training metrics.
        lr_schedule: decay of the learning rates over the training.
    """

    def __init__(self, log_every_n_updates: int, lr_schedule: LRSchedule = "constant") -> None:
        super().__init__()
        check_counts("", log_every_n_updates=log_every_n_updates)
        self.automatic_optimization = False
        self.log_every_n_updates = log_every_n_updates
        self.lr_schedule = lr_schedule
        self.num_updates = 0
        self._optimizers_by_name: dict[str, Optimizer] = {}
        self._latest_metrics: dict[str, Tensor] = {}

    @classmethod
    def extensible(cls, settings: Mapping[str, Any]) -> bool:
        """Whether a longer training with these arguments merely goes on where a shorter one ended.

        It does not where a learning rate decays over the whole length.
        """
        return bool(settings.get("lr_schedule", "constant") == "constant")

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Optimizers by name; the first one steps exactly once an update, which is what Lightning counts."""
        raise NotImplementedError

    def draw(self, batch: Transition) -> Any:
        """The random numbers of one update."""
        raise NotImplementedError

    def step(self, batch: Transition, draws: Any) -> dict[str, Tensor]:
        """One gradient update; returns detached metrics and waits for nothing."""
        raise NotImplementedError

    def check(self, batch: Transition) -> None:
        """Raise `DataError` where a batch does not fit."""

    def minimise(self, loss: Tensor, name: str, lr: float | None = None) -> None:
        """One step of the optimizer ``name`` on ``loss``, with gradients averaged over ranks.

        ``lr`` is the learning rate from this step on, for an optimizer that follows a schedule of its own.
        """
        if not self._optimizers_by_name:  # used by hand, outside a Trainer
            self.configure_optimizers()
        optimizer = self._optimizers_by_name[name]
        if lr is None and self.lr_schedule != "constant":
            lr = optimizer.defaults["lr"] * self._lr_factor(self.num_updates)
        for group in optimizer.param_groups if lr is not None else ():
            group["lr"] = lr
        optimizer.zero_grad()
        backward(self, loss)
        average_gradients(optimizer)
        if self._trainer is not None and name == next(iter(self._optimizers_by_name)):
            all_optimizers = self.optimizers()
            counted = all_optimizers[0] if isinstance(all_optimizers, list) else all_optimizers
            counted.step()  # Lightning's wrapper counts it in trainer.global_step
        else:
            optimizer.step()

    def update(self, batch: Transition, draws: Any = None) -> dict[str, Tensor]:
        """One gradient update on a batch, also outside a Trainer; ``draws`` replaces the random numbers."""
        metrics = self.step(batch, self.draw(batch) if draws is None else draws)
        self.num_updates += 1
        return metrics

    def training_step(self, batches: list[Transition], batch_idx: int) -> None:
        """One update for each of ``batches``."""
        for batch in batches:
            self.check(batch)
            self._latest_metrics |= self.update(batch)  # some updates leave the actor out
            if self.num_updates % self.log_every_n_updates == 0:
                self._record(self._latest_metrics)

    def _record(self, metrics: dict[str, Tensor]) -> None:
        """Log the metrics, averaged over ranks; the only place where training waits for the device."""
        values = average_over_ranks(torch.stack([value.float() for value in metrics.values()])).tolist()
        figures = {f"train/{name}": value for name, value in zip(metrics, values, strict=True)}
        for name, value in figures.items():
            if not math.isfinite(value):
                raise SyntherError(
                    f"{name} is {value} at update {self.num_updates}: training has diverged; go on from "
                    "the last checkpoint with a lower lr, or look for extreme values in the data"
                )
        self.log_dict(figures, logger=False, batch_size=1)
        for logger in self.loggers:
            logger.log_metrics(figures, step=self.num_updates)

    @property
    def training_length(self) -> int:
        """Updates of the training; -1 where it never ends, or there is no Trainer."""
        return self.trainer.max_steps if self._trainer is not None else -1

    def configure_optimizers(self) -> list[Optimizer]:
        """The optimizers, all of them kept in checkpoints.

        Raises `ConfigError` where the learning rate is to decay over a training of unknown length.
        """
        num_updates = self.training_length
        if num_updates < 1 and self.lr_schedule != "constant":
            raise ConfigError(
                f"lr_schedule {self.lr_schedule!r} needs the length of the training: "
                "set trainer.max_steps, or lr_schedule to constant"
            )
        self._lr_factor = lr_factor(self.lr_schedule, num_updates)
        self._optimizers_by_name = self.make_optimizers()
        return list(self._optimizers_by_name.values())

    def setup(self, stage: str) -> None:
        """Refuse precisions in which the updates would go wrong."""
        check_precision(self.trainer.precision)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the last good checkpoint rather than replace it by one that holds NaN."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                raise SyntherError(
                    f"{name} is not finite at update {self.num_updates}, so no checkpoint is written: "
                    "training has diverged; go on from the last checkpoint with a lower lr"
                )

    def get_extra_state(self) -> Tensor:
        """The number of updates, which drives schedules, is part of the state."""
        return torch.tensor(self.num_updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        self.num_updates = int(state)
