"""Evaluation as Lightning's own validation loop: an item of the dataset is an episode's seed.

A distributed sampler therefore splits episodes over ranks without any code of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_synther.envs.control import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.rollout import EpisodeResult, rollout
from lightning_synther.seeding import derive_seed


def episode_seed(seed: int, index: int) -> int:
    """Seed, below 2**31, of evaluation episode ``index`` under the evaluation seed ``seed``."""
    return derive_seed(seed, "evaluation episode", index) % 2**31


class EpisodeSeeds(Dataset[int]):
    """``num_episodes`` seeds: item i is the seed of evaluation episode i, whoever asks."""

    def __init__(self, num_episodes: int, seed: int = 0) -> None:
        if num_episodes < 1:
            raise ConfigError(f"eval_episodes is {num_episodes}: give 1 or more")
        self.num_episodes, self.seed = num_episodes, seed

    def __len__(self) -> int:
        return self.num_episodes

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.num_episodes:  # also ends iteration
            raise IndexError(index)
        return episode_seed(self.seed, index)


def episode_loader(num_episodes: int, seed: int = 0, episodes_at_a_time: int = 16) -> DataLoader[int]:
    """Batches (n,) int64 of seeds; the episodes of a batch are stepped together."""
    return DataLoader(EpisodeSeeds(num_episodes, seed), batch_size=episodes_at_a_time, num_workers=0)


def run_episodes(
    act: Callable[[Tensor], Tensor],
    config: EnvConfig | dict[str, Any],
    seeds: Tensor | Sequence[int],
    device: torch.device | str = "cpu",
    **options: Any,
) -> list[EpisodeResult]:
    """`rollout` of a policy over tensors, without gradients.

    ``act`` maps observations (n, ...) on ``device`` to actions (n, A). ``options`` are `rollout`'s: num_workers, record, num_envs, progress.
    """
    config = EnvConfig.from_dict(config) if isinstance(config, dict) else config

    @torch.inference_mode()
    def policy(observation: Any) -> Any:
        return act(torch.from_numpy(observation).to(device)).float().cpu().numpy()

    return rollout(policy, config, [int(seed) for seed in seeds], **options)
