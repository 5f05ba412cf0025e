"""Evaluation as Lightning's own validation loop: an item of the dataset is an episode's seed.

A distributed sampler therefore splits episodes over ranks without any code of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_synther.envs.config import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.rollout import EpisodeResult, rollout
from lightning_synther.seeding import derive_seed


def episode_seed(seed: int, index: int) -> int:
    """Seed, below 2**31, of evaluation episode ``index`` under the evaluation seed ``seed``."""
    return derive_seed(seed, "evaluation episode", index) % 2**31


class EpisodeSeeds(Dataset[int]):
    """The episodes to run: item i is the seed of episode i."""

    def __init__(self, seeds: Sequence[int]) -> None:
        if len(seeds) == 0:
            raise ConfigError(
                "there is no evaluation episode to run: set the number of episodes to 1 or more"
            )
        self.seeds = list(seeds)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> int:
        return self.seeds[index]


def episode_loader(num_episodes: int, seed: int = 0, episodes_at_a_time: int = 16) -> DataLoader[int]:
    """Batches (n,) int64 of seeds; the episodes of a batch are stepped together."""
    seeds = [episode_seed(seed, index) for index in range(num_episodes)]
    return DataLoader(EpisodeSeeds(seeds), batch_size=episodes_at_a_time, num_workers=0)


def run_episodes(
    act: Callable[[Tensor], Tensor],
    config: EnvConfig | dict[str, Any],
    seeds: Tensor | Sequence[int],
    device: torch.device | str = "cpu",
    **options: Any,
) -> list[EpisodeResult]:
    """`rollout` of a policy over tensors, without gradients; ``options`` are those of `rollout`.

    ``act`` maps observations (n, ...) on ``device`` to actions (n, A).

    >>> env = {"task": "cartpole_swingup", "observation": "states", "time_limit": 0.5}
    >>> still = lambda states: torch.zeros(len(states), 1)
    >>> [result.length for result in run_episodes(still, env, seeds=[0, 1], num_workers=0, progress=False)]
    [25, 25]
    """
    config = EnvConfig.from_dict(config) if isinstance(config, dict) else config

    @torch.inference_mode()
    def policy(observation: Any) -> Any:
        return act(torch.from_numpy(observation).to(device)).float().cpu().numpy()

    return rollout(policy, config, [int(seed) for seed in seeds], **options)
