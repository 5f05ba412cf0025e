"""Replay memory of an online run: rows of vector transitions, in memory or in a file that outlives the process."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_synther.errors import ConfigError
from lightning_synther.online.row_file import RowFile
from lightning_synther.transition import Transition

#: Newest rows whose checksum a checkpoint holds, to know its file again.
TAIL = 4_096


class Replay:
    """The latest ``capacity`` transitions, one row ``[observation, action, reward, next_observation, discount]`` each.

    In memory it is a ring: the oldest rows are overwritten. In a file every row that was ever added keeps its place,
    and the oldest are no longer drawn: rows that were added after a checkpoint can then never have taken the place of
    some that the checkpoint needs, and the checkpoint holds a number instead of the rows.

    ``num_added`` counts every transition ever added.

    Args:
        capacity: transitions to draw from.
        observation_dim: O.
        action_dim: A.
        path: the file; None keeps the rows in memory.
        num_rows: transitions that will ever be added, the length of the file.
    """

    def __init__(
        self,
        capacity: int,
        observation_dim: int,
        action_dim: int,
        path: Path | None = None,
        num_rows: int = 0,
    ) -> None:
        self.sizes = (observation_dim, action_dim, 1, observation_dim, 1)
        self.capacity, self.path = capacity, path
        self.num_added = 0
        width = sum(self.sizes)
        self._file = None if path is None else RowFile(path, max(num_rows, 1), (width,), torch.float32)
        self._rows = torch.zeros(capacity, width) if self._file is None else self._file.rows

    def __len__(self) -> int:
        return min(self.num_added, self.capacity)

    def add(self, transition: Transition) -> None:
        """Append a batch (N, .) of transitions, N at most the capacity."""
        rows = torch.cat(list(transition), dim=-1).float()
        at = self.num_added % len(self._rows)
        split = min(len(rows), len(self._rows) - at)
        for start, part in ((at, rows[:split]), (0, rows[split:])):
            if self._file is None:
                self._rows[start : start + len(part)] = part
            else:
                self._file.write(start, part)
        self.num_added += len(rows)

    def rows(self) -> Tensor:
        """All rows (N, W) that can be drawn, the oldest first; a view where they lie in one piece."""
        first = (self.num_added - len(self)) % len(self._rows)
        head = self._rows[first : first + len(self)]
        return head if len(head) == len(self) else torch.cat([head, self._rows[: len(self) - len(head)]])

    def gather(self, index: Tensor, out: Tensor | None = None) -> Tensor:
        """The rows (B, W) of the transitions ``index`` (B,) int64, counted from the oldest; into ``out`` if given."""
        first = self.num_added - len(self)
        return torch.index_select(self._rows, 0, (index + first).remainder_(len(self._rows)), out=out)

    def draw(self, batch_size: int, generator: np.random.Generator, out: Tensor | None = None) -> Tensor:
        """``batch_size`` rows, drawn uniformly with replacement."""
        return self.gather(torch.from_numpy(generator.integers(len(self), size=batch_size)), out)

    def unflatten(self, rows: Tensor) -> Transition:
        """Rows (..., W) as a `Transition` of views."""
        return Transition(*rows.split(self.sizes, dim=-1))

    def state_dict(self) -> dict[str, Any]:
        """Capacity, sizes and counter; the rows themselves where no file has them."""
        if self._file is not None:
            self._file.sync()
        return {
            "capacity": self.capacity,
            "sizes": list(self.sizes),
            "num_added": self.num_added,
            "rows": self.rows().clone() if self._file is None else None,
            "path": str(self.path),
            "tail": self._tail(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises `ConfigError` for a memory of another size, or another file."""
        found, wanted = (state["capacity"], *state["sizes"]), (self.capacity, *self.sizes)
        if found != wanted:
            raise ConfigError(
                f"the checkpoint's replay memory has (capacity, column sizes) {found}, this run's has "
                f"{wanted}: resume with the data.replay_capacity and data.env that it was started with"
            )
        self.num_added = state["num_added"]
        rows = state["rows"]
        if (
            rows is None and not self._is_mine(state) and Path(state["path"]).exists()
        ):  # resumed in another folder
            rows = self._read(Path(state["path"]), len(self))
        if rows is not None:
            self.num_added -= len(rows)
            self.add(self.unflatten(rows))
        if not self._is_mine(state):
            raise ConfigError(
                f"{self.path or state['path']} does not hold the {state['num_added']} transitions that the "
                "checkpoint comes after: put the run's folder back as it was, or start anew in another run directory"
            )

    def _is_mine(self, state: dict[str, Any]) -> bool:
        fits = self._file is None or state["num_added"] <= len(self._rows)
        return fits and bool(self._tail() == state["tail"])

    def _read(self, path: Path, count: int) -> Tensor:
        """The newest ``count`` rows of another memory's file."""
        width = sum(self.sizes)
        first = (self.num_added - count) * width
        values = np.fromfile(path, np.float32, count * width, offset=4 * first)
        return torch.from_numpy(values).view(-1, width)

    def _tail(self) -> str:
        newest = self.gather(torch.arange(max(0, len(self) - TAIL), len(self)))
        return hashlib.blake2b(newest.numpy().tobytes(), digest_size=8).hexdigest()
