"""Score an agent: Lightning's own validation or test loop, in which a batch is the seeds of some episodes."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lightning_synther.agents.agent import Agent
from lightning_synther.evaluation.episodes import episode_loader
from lightning_synther.stages.config.sections import EvaluationConfig
from lightning_synther.stages.trainer.training import TrainerFactory, interruptible


class EvaluationData(pl.LightningDataModule):
    """Seeds of the final evaluation's episodes."""

    def __init__(self, config: EvaluationConfig) -> None:
        super().__init__()
        self.config = config

    def val_dataloader(self) -> DataLoader[int]:
        """Batches of episode seeds; the episodes of a batch are stepped together."""
        return episode_loader(self.config.episodes, self.config.seed)

    def test_dataloader(self) -> DataLoader[int]:
        """The same episodes."""
        return self.val_dataloader()


def evaluate(
    factory: TrainerFactory, verb: str, agent: Agent, config: EvaluationConfig, logger: str = "evaluation"
) -> dict[str, Any]:
    """Run the loop that ``verb`` names, ``validate`` or ``test``, on the episodes of ``config``; returns the scores."""
    trainer = factory.plain_trainer(logger)
    with interruptible(trainer):
        getattr(trainer, verb)(agent, datamodule=EvaluationData(config), verbose=False)
    return dict(agent.eval_results)
