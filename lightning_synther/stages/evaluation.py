"""Score an agent: Lightning's own validation or test loop, in which a batch is the seeds of some episodes."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from lightning_synther.agents.agent import Agent
from lightning_synther.data.updates import EpisodesMixin
from lightning_synther.stages.config.sections import EvaluationConfig
from lightning_synther.stages.trainer.training import TrainerFactory, interruptible


class EvaluationData(EpisodesMixin, pl.LightningDataModule):
    """Seeds of the final evaluation's episodes."""

    def __init__(self, config: EvaluationConfig) -> None:
        super().__init__()
        self.eval_episodes, self.eval_seed = config.episodes, config.seed


def evaluate(
    factory: TrainerFactory, verb: str, agent: Agent, config: EvaluationConfig, logger: str = "evaluation"
) -> dict[str, Any]:
    """Run the loop that ``verb`` names, ``validate`` or ``test``, on the episodes of ``config``; returns the scores."""
    trainer = factory.plain_trainer(logger)
    with interruptible(trainer):
        getattr(trainer, verb)(agent, datamodule=EvaluationData(config), verbose=False)
    return dict(agent.eval_results)
