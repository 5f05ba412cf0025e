"""What all training data have in common: endless lists of batches, each a function of (seed, rank, update).

Every training dataloader yields a list with one batch per gradient update, ``updates_per_step`` of them, so
that Lightning's overhead is paid once for all. It never ends; ``max_steps`` does. The batch of update k is
the same whatever ``updates_per_step``: a resumed run starts at ``trainer.global_step`` and sees what the
uninterrupted one saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.episodes import episode_loader
from lightning_synther.seeding import derive_seed

Batch = TypeVar("Batch")


class Updates(IterableDataset[list[Batch]], Generic[Batch]):
    """Endless batches, from update ``first_update()`` on, ``updates_per_step`` at a time."""

    def __init__(
        self, batches: Callable[[range], list[Batch]], first_update: Callable[[], int], updates_per_step: int
    ) -> None:
        self.batches = batches
        self.first_update = first_update
        self.updates_per_step = updates_per_step

    def __iter__(self) -> Iterator[list[Batch]]:
        update = self.first_update()
        while True:
            yield self.batches(range(update, update + self.updates_per_step))
            update += self.updates_per_step


class UpdateData(pl.LightningDataModule, Generic[Batch]):
    """What the data of this module have in common; subclasses draw the batches.

    Raises `ConfigError` in `setup` where ``updates_per_step`` does not divide the Trainer's ``max_steps``, and
    at the first batch where it does not divide what a resumed training has left of them.
    """

    def __init__(self, batch_size: int, updates_per_step: int, seed: int) -> None:
        super().__init__()
        if batch_size < 1 or updates_per_step < 1:
            raise ConfigError(
                "data.batch_size and data.updates_per_step must be at least 1, "
                f"they are {batch_size} and {updates_per_step}"
            )
        self.batch_size = batch_size
        self.updates_per_step = updates_per_step
        self.seed = seed

    def agent_arguments(self) -> dict[str, Any]:
        """Constructor arguments of an agent that these data decide; none where the config has to say them."""
        return {}

    def check_agent(self, cls: type[pl.LightningModule]) -> None:
        """Raise `ConfigError` for a class of agents that cannot learn from these data."""

    def batches(self, updates: range) -> list[Batch]:
        """The batches of some gradient updates."""
        raise NotImplementedError

    def results(self) -> dict[str, Any]:
        """What the data measured during a training, in JSON's types, for the run's summary."""
        return {}

    def setup(self, stage: str) -> None:
        """Check that the Trainer stops after a whole number of steps."""
        max_steps = self.trainer.max_steps if self.trainer is not None else -1
        if stage == "fit" and max_steps > 0 and max_steps % self.updates_per_step:
            raise ConfigError(
                f"data.updates_per_step {self.updates_per_step} does not divide "
                f"trainer.max_steps {max_steps}: change one of them"
            )

    def train_dataloader(self) -> DataLoader[list[Batch]]:
        """Endless lists of batches."""
        return DataLoader(Updates(self.batches, self._first_update, self.updates_per_step), batch_size=None)

    def generator(self, update: int) -> np.random.Generator:
        """The draws of one update on this rank."""
        rank = self.trainer.global_rank if self.trainer is not None else 0
        return np.random.default_rng(derive_seed(self.seed, "replay", rank, update))

    def _first_update(self) -> int:
        if self.trainer is None:
            return 0
        first, last = self.trainer.global_step, self.trainer.max_steps
        if last > 0 and (last - first) % self.updates_per_step:
            raise ConfigError(
                f"updates_per_step is {self.updates_per_step}, but a training that goes on from update {first} does "
                f"not come to max_steps {last} with it: give the updates_per_step that it was begun with"
            )
        return first


class EpisodesMixin:
    """Validation and test in the environment: a batch holds seeds of episodes that are stepped together."""

    eval_episodes: int
    eval_seed: int

    def val_dataloader(self) -> DataLoader[int]:
        """Seeds of the evaluation episodes."""
        return episode_loader(self.eval_episodes, self.eval_seed)

    def test_dataloader(self) -> DataLoader[int]:
        """The same episodes."""
        return self.val_dataloader()
