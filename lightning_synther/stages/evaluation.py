"""Score an agent: Lightning's own validation or test loop, in which a batch is the seeds of some episodes."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lightning_synther.agents.agent import Agent
from lightning_synther.evaluation.episodes import episode_loader
from lightning_synther.stages.config.sections import EvaluationConfig
from lightning_synther.stages.trainer.training import TrainerFactory, interruptible

#: What the seeds of the validation episodes derive from where no data say otherwise (their ``eval_seed``).
VALIDATION_SEED = 0


class EvaluationData(pl.LightningDataModule):
    """Seeds of the episodes that choose a checkpoint, as a training's validations do, and of those that score it."""

    def __init__(self, config: EvaluationConfig, validation_seed: int = VALIDATION_SEED) -> None:
        super().__init__()
        self.config, self.validation_seed = config, validation_seed

    def val_dataloader(self) -> DataLoader[int]:
        """The first of the episodes on which a training with this seed validates."""
        return episode_loader(self.config.episodes, self.validation_seed)

    def test_dataloader(self) -> DataLoader[int]:
        """Others, which no training has seen."""
        return episode_loader(self.config.episodes, self.config.seed)


def evaluate(
    factory: TrainerFactory,
    verb: str,
    agent: Agent,
    config: EvaluationConfig,
    *,
    validation_seed: int = VALIDATION_SEED,
    logger: str = "evaluation",
) -> dict[str, Any]:
    """Run the loop that ``verb`` names, ``validate`` or ``test``; returns the scores.

    Both run ``config.episodes`` episodes, ``test`` those of ``config.seed``, ``validate`` those of ``validation_seed``.
    """
    trainer = factory.plain_trainer(logger)
    with interruptible(trainer):
        getattr(trainer, verb)(agent, datamodule=EvaluationData(config, validation_seed), verbose=False)
    return dict(agent.eval_results)
