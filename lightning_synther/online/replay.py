"""Replay memory of an online run: a ring of vector transitions, preallocated."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_synther.errors import ConfigError
from lightning_synther.transition import Transition


class RingReplay:
    """The latest ``capacity`` transitions, one preallocated tensor per field; the oldest are overwritten.

    ``num_added`` counts every transition ever added: the next one goes to row ``num_added % capacity``.
    """

    def __init__(self, capacity: int, observation_dim: int, action_dim: int) -> None:
        sizes = (observation_dim, action_dim, 1, observation_dim, 1)
        self.storage = Transition(*(torch.zeros(capacity, size) for size in sizes))
        self.capacity = capacity
        self.num_added = 0

    def __len__(self) -> int:
        return min(self.num_added, self.capacity)

    def add(self, transition: Transition) -> None:
        """Append a batch (N, .) of transitions, N at most the capacity."""
        num_new = len(transition.reward)
        rows = torch.arange(self.num_added, self.num_added + num_new) % self.capacity
        for stored, new in zip(self.storage, transition, strict=True):
            stored[rows] = new
        self.num_added += num_new

    def sample(self, batch_size: int, generator: np.random.Generator) -> Transition:
        """``batch_size`` transitions, drawn uniformly with replacement."""
        return self.gather(torch.from_numpy(generator.integers(len(self), size=batch_size)))

    def gather(self, index: Tensor) -> Transition:
        """The transitions in the rows ``index`` (B,) int64."""
        return Transition(*(field.index_select(0, index) for field in self.storage))

    def state_dict(self) -> dict[str, Any]:
        """Capacity, counter and the filled rows."""
        rows = {name: field[: len(self)].clone() for name, field in self.storage._asdict().items()}
        return {"capacity": self.capacity, "num_added": self.num_added, "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises `ConfigError` for a memory of another size."""
        found = (state["capacity"], *(rows.shape[1] for rows in state["rows"].values()))
        wanted = (self.capacity, *(field.shape[1] for field in self.storage))
        if found != wanted:
            raise ConfigError(
                f"the checkpoint's replay memory has (capacity, column sizes) {found}, this run's has "
                f"{wanted}: resume with the data.replay_capacity and data.env that it was started with"
            )
        self.num_added = state["num_added"]
        for name, rows in state["rows"].items():
            getattr(self.storage, name)[: len(rows)] = rows
