"""The fidelity of a diffusion model's samples while it trains."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.conditioning import Prompt
from lightning_synther.diffusion.guidance import Guidance
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.evaluation.board import tag
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis.fidelity import fidelity
from lightning_synther.synthesis.figures import marginals_figure

#: Real records that the samples are compared with.
MAX_REAL = 5_000
#: Share of the training's time that it may take, after its first look.
MAX_SHARE = 0.02


class FidelityMonitor(Callback):
    """After a validation, sample transitions as `Trainer.predict` does, compare them, log ``fidelity/<score>``.

    Lightning runs no validation over data that hold nothing out; then it looks after those training batches at
    which one was due.

    The same seed every time, so that two looks differ by the weights alone; a conditional model is given the
    conditions of random training rows. Done on rank zero, and outside the training's random numbers.

    The first validation shows what a look costs. From then on those validations are left out at which another
    one would bring all of them above ``max_share`` of the time that the training has taken.

    Args:
        real: store that the model is trained on.
        heldout: store of real transitions that it is not; without it there are no floors, as in `fidelity`.
        num_transitions: transitions to sample.
        seed: of the samples.
        max_share: share of the training's time; 1 or more looks at every validation.
    """

    def __init__(
        self,
        real: TransitionStore,
        heldout: TransitionStore | None,
        num_transitions: int = 1_000,
        seed: int = 0,
        max_share: float = MAX_SHARE,
    ) -> None:
        self.real, self.heldout = real, heldout
        self.num_transitions, self.seed, self.max_share = num_transitions, seed, max_share
        self._start, self._spent, self._latest = time.monotonic(), 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start, self._spent, self._latest = time.monotonic(), 0.0, 0.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look, if there is time for it."""
        if not trainer.sanity_checking:
            self._look_if_affordable(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """The same where a validation would be due, had it any batches."""
        if trainer.enable_validation and not sum(trainer.num_val_batches):
            interval = trainer.val_check_batch
            if interval and (trainer.fit_loop.total_batch_idx + 1) % interval == 0:
                self._look_if_affordable(trainer, pl_module)

    def _look_if_affordable(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self._affordable():
            return
        assert isinstance(pl_module, LatentDiffusion)
        begin = time.monotonic()
        self._look(trainer, pl_module)
        self._latest = time.monotonic() - begin
        self._spent += self._latest

    def _affordable(self) -> bool:
        training = time.monotonic() - self._start - self._spent
        return (
            self._spent == 0 or self.max_share >= 1 or self._spent + self._latest <= self.max_share * training
        )

    def _look(self, trainer: pl.Trainer, model: LatentDiffusion) -> None:
        """Sample, compare, log."""
        guidance = Guidance(prompt=Prompt("data")) if model.conditioner.dim else None
        seed = derive_seed(self.seed, "monitor")
        with trainer.precision_plugin.predict_step_context():
            rows = model.sample(self.num_transitions, seed=seed, guidance=guidance).float().cpu().numpy()
        heldout = None if self.heldout is None else self.heldout.rows
        spec = self.real.spec
        scores = fidelity(self.real.rows, rows, heldout, spec, MAX_REAL).scores
        figures = {f"fidelity/{name}": value for name, value in scores.items()}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)
            if isinstance(logger, TensorBoardLogger):
                figure = marginals_figure(
                    self.real.rows if heldout is None else heldout, rows, spec, MAX_REAL
                )
                logger.experiment.add_figure(tag(logger, "panels/1_marginals"), figure, trainer.global_step)
