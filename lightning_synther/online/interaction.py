"""The data of an online run: a dataloader that steps environments with the agent's policy between batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_synther.envs.control import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.episodes import EpisodeSeeds
from lightning_synther.online.environments import Environments, Floats
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import Transition


class Explorer(Protocol):
    """An agent that can act in training."""

    device: torch.device

    def explore(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions (N, A) for observations (N, O) and standard normal noise (N, A), without gradients."""
        ...


class OnlineData(LightningDataModule):
    """Steps the environments and samples their replay memory: one epoch is the whole run of ``agent_steps``.

    Every training batch follows ``steps_per_iteration`` agent steps (counted over ``num_envs`` environments; an
    agent step is ``env.action_repeat`` physics steps) and holds ``update_to_data_ratio`` gradient updates for each
    of them. The first ``start_steps`` agent steps are uniformly random and train nothing. Under several processes
    each steps its own environments, an equal share of all steps.
    """

    def __init__(
        self,
        env: EnvConfig,
        agent_steps: int = 100_000,
        start_steps: int = 2_000,
        update_to_data_ratio: float = 1.0,
        batch_size: int = 256,
        num_envs: int = 1,
        steps_per_iteration: int = 8,
        replay_capacity: int = 1_000_000,
        gamma: float = 0.99,
        seed: int = 0,
        eval_episodes: int = 10,
        eval_seed: int = 1000,
    ) -> None:
        super().__init__()
        self.save_hyperparameters({**{k: v for k, v in locals().items() if k != "self"}, "env": asdict(env)})
        self.env = env
