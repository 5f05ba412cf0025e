"""The data of an online run: a dataloader that steps environments with the agent's policy between batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_synther.envs.control import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.online.environments import Environments, Floats
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import Transition


class Explorer(Protocol):
    """An agent that can act while it trains."""

    device: torch.device

    def explore(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions (N, A) for observations (N, O) and standard normal noise (N, A)."""
        ...


class OnlineData(LightningDataModule):
    """Steps environments and samples their replay memory; one epoch is the whole run of ``agent_steps``.

    A training batch follows ``steps_per_batch`` agent steps (counted over all ``num_envs`` environments; an agent
    step is ``env.action_repeat`` control steps) and is a list of ``update_to_data_ratio`` batches for each of them,
    one per gradient update. The first ``start_steps`` agent steps are uniformly random and train nothing. With
    several processes each steps environments of its own and takes its share of all steps.
    """

    def __init__(
        self,
        env: EnvConfig,
        agent_steps: int = 100_000,
        start_steps: int = 2_000,
        update_to_data_ratio: float = 1.0,
        batch_size: int = 256,
        num_envs: int = 1,
        steps_per_batch: int = 8,
        replay_capacity: int = 1_000_000,
        gamma: float = 0.99,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if env.observation != "states":
            raise ConfigError(f"data.env.observation is '{env.observation}': online training reads 'states'")
        if agent_steps <= start_steps or start_steps < num_envs:
            raise ConfigError(
                f"data.agent_steps={agent_steps}, data.start_steps={start_steps}, data.num_envs={num_envs} leave "
                "nothing to learn from: they must increase from num_envs over start_steps to agent_steps"
            )
        self.env, self.seed, self.gamma = env, seed, gamma
        self.agent_steps, self.start_steps = agent_steps, start_steps
        self.update_to_data_ratio, self.batch_size = update_to_data_ratio, batch_size
        self.num_envs, self.steps_per_batch, self.replay_capacity = num_envs, steps_per_batch, replay_capacity

    def setup(self, stage: str) -> None:
        """Build the environments of this process."""
        if stage == "fit":
            self.rank, self.world_size = self.trainer.global_rank, self.trainer.world_size
            self.environments = Environments(
                self.env, self.num_envs, self.replay_capacity, self.gamma, self.seed, self.rank
            )
            self.num_sampled = 0

    def train_dataloader(self) -> DataLoader:
        """Yields ``list[Transition]``."""
        return DataLoader(_Batches(self), batch_size=None)

    @property
    def num_batches(self) -> int:
        """Training batches of the whole run."""
        rounds = -(-self.steps_per_batch // self.num_envs)
        return (self.agent_steps - self.start_steps) // (rounds * self.num_envs * self.world_size)

    def interact(self) -> list[Transition]:
        """Take the agent steps of one training batch and sample the updates that are due after them."""
        environments = self.environments
        if environments.num_steps == 0:
            self._log_returns(environments.collect(self.start_steps, explore=None))
        self._log_returns(environments.collect(self.steps_per_batch, self._explore))
        num_random = -(-self.start_steps // self.num_envs) * self.num_envs
        due = int(self.update_to_data_ratio * (environments.num_steps - num_random)) - self.num_sampled
        batches = [self._sample(self.num_sampled + i) for i in range(due)]
        self.num_sampled += due
        return batches

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: environments, replay memory, counters."""
        return {"environments": self.environments.state_dict(), "num_sampled": self.num_sampled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.environments.load_state_dict(state_dict["environments"])
        self.num_sampled = state_dict["num_sampled"]

    def _sample(self, k: int) -> Transition:
        rng = np.random.default_rng(derive_seed(self.seed, "replay", self.rank, k))
        return self.environments.replay.sample(self.batch_size, rng)

    def _explore(self, states: Floats, noise: Floats) -> Floats:
        agent = cast(Explorer, self.trainer.lightning_module)
        tensors = (torch.from_numpy(array).to(agent.device) for array in (states, noise))
        return agent.explore(*tensors).cpu().numpy()

    def _log_returns(self, returns: list[float]) -> None:
        for value in returns:
            metrics = {"train/episode_return": value, "train/agent_steps": self.environments.num_steps}
            for logger in self.trainer.loggers:
                logger.log_metrics(metrics, step=self.trainer.global_step)


class _Batches(IterableDataset):
    """All training batches of one run. It has a length, so Lightning does not fetch a batch ahead, and every action
    comes from the latest policy.
    """

    def __init__(self, data: OnlineData) -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.num_batches

    def __iter__(self) -> Iterator[list[Transition]]:
        while True:
            yield self._data.interact()
