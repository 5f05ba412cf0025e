"""The data of the final agent in a config, and the episodes that it is scored on."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lightning_synther.data.datamodules import ReplayData
from lightning_synther.data.rewards import check_reward_map
from lightning_synther.evaluation.episodes import episode_loader
from lightning_synther.stages.config import EvaluationConfig
from lightning_synther.stages.dataset_config import DatasetConfig


class SynthERData(ReplayData):
    """Real and synthetic latent transitions of a pixel dataset.

    In a config for ``fit`` give the `dataset`; the stages make both stores and fill in their paths. With
    paths of your own it is a plain `ReplayData`.

    Args:
        dataset: which pixels the stages start from.
        replay: arguments of `ReplayData`.
    """

    def __init__(self, dataset: DatasetConfig | None = None, **replay: Any) -> None:
        super().__init__(**replay)
        if dataset is not None:
            check_reward_map(self.reward_scale, self.reward_bias, dataset.n_step)
        self.dataset = dataset


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
