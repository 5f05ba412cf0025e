"""The fidelity of a diffusion model's samples while it trains."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.conditioning import Prompt
from lightning_synther.diffusion.guidance import Guidance
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis.fidelity import fidelity
from lightning_synther.synthesis.figures import fidelity_figure

#: Real records that the samples are compared with.
MAX_REAL = 20_000


class FidelityMonitor(Callback):
    """At every validation, sample transitions as `Trainer.predict` does, compare them, log ``fidelity/<score>``.

    The same seed every time, so that two validations differ by the weights alone; a conditional model is given the
    conditions of random training rows. Done on rank zero, and outside the training's random numbers.

    Args:
        real: store that the model is trained on.
        heldout: store of real transitions that it is not; without it there are no floors, as in `fidelity`.
        num_transitions: transitions to sample.
        seed: of the samples.
    """

    def __init__(
        self,
        real: TransitionStore,
        heldout: TransitionStore | None,
        num_transitions: int = 1_000,
        seed: int = 0,
    ) -> None:
        self.real, self.heldout = real, heldout
        self.num_transitions, self.seed = num_transitions, seed

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sample, compare, log."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, LatentDiffusion)
        guidance = Guidance(prompt=Prompt("data")) if pl_module.conditioner.dim else None
        seed = derive_seed(self.seed, "monitor")
        with trainer.precision_plugin.predict_step_context():
            rows = pl_module.sample(self.num_transitions, seed=seed, guidance=guidance).float().cpu().numpy()
        heldout = None if self.heldout is None else self.heldout.rows
        spec = self.real.spec
        scores = fidelity(self.real.rows, rows, heldout, spec, MAX_REAL).scores
        figures = {f"fidelity/{name}": value for name, value in scores.items()}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)
            if isinstance(logger, TensorBoardLogger):
                figure = fidelity_figure(self.real.rows if heldout is None else heldout, rows, spec)
                logger.experiment.add_figure("fidelity/real_and_synthetic", figure, trainer.global_step)
