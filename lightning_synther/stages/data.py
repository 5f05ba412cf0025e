"""The data of the final agent in a config, and the episodes that it is scored on."""

from __future__ import annotations

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lightning_synther.data.datamodules import ReplayData
from lightning_synther.data.mixing import Mixing
from lightning_synther.data.rewards import RewardScale, check_reward_map
from lightning_synther.evaluation.episodes import episode_loader
from lightning_synther.stages.config import DatasetConfig, EvaluationConfig


class SynthERData(ReplayData):
    """Real and synthetic latent transitions of a pixel dataset.

    In a config for ``fit`` give the `dataset`; the stages make both stores and fill in their paths. With
    paths of your own it is a plain `ReplayData`.

    Args:
        dataset: which pixels the stages start from.
        real: store of real transitions.
        synthetic: store of synthetic transitions.
        mixing: alternate whole batches, mix within a batch by `ratio`, or use one kind only.
        ratio: synthetic share of a batch with ``mixing: ratio``.
        batch_size: transitions in an update.
        updates_per_step: updates in one pass of Lightning's loop.
        seed: seed of the batches.
        eval_episodes: validation episodes during training.
        reward_scale: factor of all rewards, or ``return_range``, as in `ReplayData`.
        reward_bias: added to scaled rewards, for single-step transitions.
    """

    def __init__(
        self,
        dataset: DatasetConfig | None = None,
        real: str | None = None,
        synthetic: str | None = None,
        mixing: Mixing = "alternate",
        ratio: float = 0.5,
        batch_size: int = 256,
        updates_per_step: int = 10,
        seed: int = 0,
        eval_episodes: int = 10,
        reward_scale: RewardScale = 1.0,
        reward_bias: float = 0.0,
    ) -> None:
        check_reward_map(reward_scale, reward_bias, None if dataset is None else dataset.n_step)
        super().__init__(
            real,
            synthetic,
            mixing=mixing,
            ratio=ratio,
            batch_size=batch_size,
            updates_per_step=updates_per_step,
            seed=seed,
            eval_episodes=eval_episodes,
            reward_scale=reward_scale,
            reward_bias=reward_bias,
        )
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
