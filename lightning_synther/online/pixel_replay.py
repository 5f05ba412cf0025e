"""Replay memory of an online run from pixels: single frames in a file, stacked, shifted and summed when drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lightning_synther.data.episodes import pad_frames
from lightning_synther.data.replay import PaddedFrames
from lightning_synther.data.windows import n_step_returns
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.online.row_file import RowFile
from lightning_synther.transition import Transition

#: Newest rows whose checksum a checkpoint holds, to know its files again.
TAIL = 16


class OnlinePixelReplay:
    """Episodes of one environment as they are played, drawn as `data.replay.PixelReplay` draws finished ones.

    Row t holds a frame and the action, reward and discount that led to it; an episode begins with the row of its reset.
    A window of ``n_step`` rows can be drawn as soon as its last row is there, of the latest ``capacity`` windows; an
    episode of fewer steps has none. As with `online.replay.Replay` every row keeps its place, so that a
    checkpoint holds numbers alone; 84 pixels a side take 25 kB a step.

    Args:
        capacity: windows to draw from.
        action_dim: A.
        image_size: H = W.
        frame_stack: frames in an observation.
        n_step: rewards folded into one transition.
        gamma: discount of one step.
        pad: largest shift in pixels.
        path: folder of the files; None keeps the rows in memory.
        num_rows: rows that will ever be added, resets included.
    """

    def __init__(
        self,
        capacity: int,
        action_dim: int,
        image_size: int,
        frame_stack: int,
        n_step: int,
        gamma: float,
        pad: int,
        path: Path | None,
        num_rows: int,
    ) -> None:
        self.capacity, self.action_dim, self.path = capacity, action_dim, path
        self.frame_stack, self.n_step, self.gamma, self.pad = frame_stack, n_step, gamma, pad
        side = image_size + 2 * pad
        shapes = {"frames": ((3, side, side), torch.uint8), "numbers": ((action_dim + 3,), torch.float64)}
        self._files: dict[str, RowFile] = {}
        if path is not None:
            self._files = {
                name: RowFile(path / f"{name}.rows", num_rows, *kind) for name, kind in shapes.items()
            }
        self._rows = {
            name: self._files[name].rows if path is not None else torch.zeros(num_rows, *shape, dtype=dtype)
            for name, (shape, dtype) in shapes.items()
        }
        self._stacks = PaddedFrames(self._rows["frames"], (image_size, image_size), pad)
        self._numbers: NDArray[np.float64] = self._rows["numbers"].numpy()
        self._windows = np.zeros(num_rows, np.int64)  # first row of each
        self.num_rows = self.num_windows = self._first = 0

    def __len__(self) -> int:
        return min(self.num_windows, self.capacity)

    def add_reset(self, frame: NDArray[np.uint8]) -> None:
        """Begin an episode with its first frame (3, H, W)."""
        self._first = self.num_rows
        self._append(frame, np.zeros(self.action_dim), 0.0, 1.0)

    def add(
        self, frame: NDArray[np.uint8], action: NDArray[np.floating], reward: float, discount: float
    ) -> None:
        """The next frame (3, H, W) of the episode, and what led to it; ``discount`` is the environment's own."""
        self._append(frame, action, reward, discount)
        start = self.num_rows - self.n_step
        if start > self._first:
            self._windows[self.num_windows] = start
            self.num_windows += 1

    def windows(self) -> NDArray[np.int64]:
        """(N,) first rows of all windows that can be drawn, the oldest first."""
        return self._windows[self.num_windows - len(self) : self.num_windows]

    def sample(self, batch_size: int, rng: np.random.Generator) -> Transition:
        """Draw ``batch_size`` transitions uniformly, each observation with a random shift of its own.

        Raises `DataError` while there is no window.
        """
        if not len(self):
            raise DataError(
                f"no episode had {self.n_step} steps so far, so there is nothing to learn from: lower data.n_step or "
                "raise data.start_steps"
            )
        rows = self.windows()[rng.integers(0, len(self), batch_size)]
        shifts = rng.integers(0, 2 * self.pad + 1, (2, batch_size, 2))
        action, reward, discount = self.numbers_of(rows)
        observation = self.frames_at(rows - 1, shifts[0])
        return Transition(
            observation, action, reward, self.frames_at(rows + self.n_step - 1, shifts[1]), discount
        )

    def numbers_of(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (B, A), n-step returns (B, 1) and discounts (B, 1) of the windows that start in ``rows`` (B,)."""
        dim = self.action_dim
        columns = self._numbers[:, dim], self._numbers[:, dim + 1]
        returns, discounts = n_step_returns(rows, *columns, self.n_step, self.gamma)
        action, reward, discount = (
            torch.from_numpy(values.astype(np.float32))
            for values in (self._numbers[rows, :dim], returns[:, None], discounts[:, None])
        )
        return action, reward, discount

    def frames_at(self, rows: NDArray[np.int64], shifts: ArrayLike | None = None) -> Tensor:
        """Observations (B, 3 * frame_stack, H, W) uint8 that end in ``rows`` (B,); before its first frame an episode
        repeats it.
        """
        first = self._numbers[rows, self.action_dim + 2].astype(np.int64)
        frames = np.maximum(rows[:, None] + np.arange(1 - self.frame_stack, 1), first[:, None])
        return self._stacks.stacks(frames, shifts)

    def state_dict(self) -> dict[str, Any]:
        """Counters; the rows themselves where no file has them."""
        for file in self._files.values():
            file.sync()
        rows = {name: rows[: self.num_rows].clone() for name, rows in self._rows.items()}
        return {
            "settings": self._settings(),
            "num_rows": self.num_rows,
            "rows": None if self._files else rows,
            "tail": self._tail(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises `ConfigError` for another memory, or another file."""
        if state["settings"] != self._settings():
            raise ConfigError(
                f"the checkpoint's replay memory has {state['settings']}, this run's has {self._settings()}: resume "
                "with the data settings that it was started with"
            )
        self.num_rows = state["num_rows"]
        if self.num_rows <= len(self._numbers):
            for name, rows in (state["rows"] or {}).items():
                self._rows[name][: len(rows)] = rows
        if self.num_rows > len(self._numbers) or self._tail() != state["tail"]:
            raise ConfigError(
                f"{self.path or 'the replay memory'} does not hold the {self.num_rows} frames that the checkpoint "
                "comes after: put the run's folder back as it was, or start anew in another run directory"
            )
        first = self._numbers[: self.num_rows, self.action_dim + 2].astype(np.int64)
        ends = np.flatnonzero(np.arange(self.num_rows) - first >= self.n_step)
        self.num_windows = len(ends)
        self._windows[: self.num_windows] = ends - self.n_step + 1
        self._first = int(first[-1]) if self.num_rows else 0

    def _append(
        self, frame: NDArray[np.uint8], action: NDArray[np.floating], reward: float, discount: float
    ) -> None:
        values = {
            "frames": torch.from_numpy(pad_frames(np.ascontiguousarray(frame)[None], self.pad)),
            "numbers": torch.tensor(
                [[*map(float, action), reward, discount, self._first]], dtype=torch.float64
            ),
        }
        for name, rows in values.items():
            if self._files:
                self._files[name].write(self.num_rows, rows)
            else:
                self._rows[name][self.num_rows] = rows[0]
        self.num_rows += 1

    def _settings(self) -> dict[str, Any]:
        names = ("capacity", "action_dim", "frame_stack", "n_step", "gamma", "pad")
        return {name: getattr(self, name) for name in names} | {"side": self._rows["frames"].shape[-1]}

    def _tail(self) -> str:
        newest = slice(max(0, self.num_rows - TAIL), self.num_rows)
        digest = hashlib.blake2b(digest_size=8)
        for rows in self._rows.values():
            digest.update(rows[newest].numpy().tobytes())
        return digest.hexdigest()
