"""Replay of pixel episodes: stacked, randomly shifted frames, gathered as bytes in one pass.

A random shift (Yarats et al. 2021, DrQ-v2: pad by replication, crop at a random whole pixel) of a frame that
is stored with replicated edges is nothing but another place in memory. The frames are looked at as
overlapping rows of W bytes, one starting at every byte, and a batch is a single `torch.index_select` of
B * stack * C * H such rows: uint8, NCHW, ready for a network whose first convolution folds in the scaling.
"""

from __future__ import annotations

import logging
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lightning_synther.data.episodes import Episodes, pad_frames
from lightning_synther.data.windows import n_step_returns, stack_rows, valid_rows
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.transition import Transition

log = logging.getLogger(__name__)


class PixelReplay:
    """Transitions of stacked frames, drawn with replacement from ``episodes``.

    Transition i goes from the observation that ends in row ``observation_rows[i]`` to the one that ends in
    ``next_rows[i]``, n_step rows later. It never leaves its episode.

    Args:
        episodes: the data; frames already padded by at least ``pad`` are used as they lie (mapped, say).
        frame_stack: frames in an observation, stacked along channels, oldest first.
        n_step: rewards folded into one transition.
        gamma: discount of one step.
        pad: largest shift in pixels; an unshifted frame lies at (pad, pad).
        subset: numbers of the episodes to draw from; all by default.

    >>> rng = np.random.default_rng(0)
    >>> rows = {"reward": rng.random(20).astype(np.float32), "discount": np.ones(20, np.float32)}
    >>> frames = rng.integers(256, size=(20, 3, 84, 84)).astype(np.uint8)
    >>> two = Episodes(frames, np.zeros((20, 6), np.float32), **rows, lengths=np.array([10, 10]))
    >>> replay = PixelReplay(two, frame_stack=3, n_step=3)
    >>> len(replay), replay.sample(32, rng).observation.shape
    (14, torch.Size([32, 9, 84, 84]))
    """

    def __init__(
        self,
        episodes: Episodes,
        *,
        frame_stack: int = 3,
        n_step: int = 1,
        gamma: float = 0.99,
        pad: int = 4,
        subset: ArrayLike | None = None,
    ) -> None:
        if frame_stack < 1 or n_step < 1 or pad < 0:
            raise ConfigError(
                f"frame_stack {frame_stack}, n_step {n_step} and pad {pad} cannot be: "
                "give frame_stack >= 1, n_step >= 1 and pad >= 0"
            )
        self.episodes = episodes
        self.frame_stack, self.n_step, self.gamma, self.pad = frame_stack, n_step, gamma, pad
        self.rows = valid_rows(episodes.lengths, n_step, subset)
        if len(self.rows) == 0:
            raise DataError(
                f"no episode is longer than n_step {n_step}, the longest has "
                f"{episodes.lengths.max(initial=0)} observations: lower n_step or use other data"
            )
        returns, discount = n_step_returns(self.rows, episodes.reward, episodes.discount, n_step, gamma)
        self.action = torch.from_numpy(episodes.action[self.rows])
        self.reward = torch.from_numpy(returns.astype(np.float32)[:, None])
        self.discount = torch.from_numpy(discount.astype(np.float32)[:, None])
        self._index_pixels()

    def _index_pixels(self) -> None:
        padded = self.episodes.padded
        if padded is None or padded.shape[3] - self.episodes.frames.shape[3] < 2 * self.pad:
            log.info("padding %d frames by %d pixels, in memory", len(self.episodes.frames), self.pad)
            padded = pad_frames(self.episodes.frames, self.pad)
        size = self.episodes.frames.shape[2:]
        self._frames = PaddedFrames(torch.from_numpy(np.ascontiguousarray(padded)), size, self.pad)
        channels, height, width = self.episodes.frames.shape[1:]
        self.observation_shape = (self.frame_stack * channels, height, width)

    @property
    def num_transitions(self) -> int:
        """M, the number of transitions to draw from."""
        return len(self.rows)

    def __len__(self) -> int:
        return self.num_transitions

    @property
    def action_dim(self) -> int:
        """A."""
        return self.episodes.action_dim

    @cached_property
    def observation_rows(self) -> NDArray[np.int64]:
        """(M,) row of the newest frame of each transition's observation."""
        return self.rows - 1

    @cached_property
    def next_rows(self) -> NDArray[np.int64]:
        """(M,) row of the newest frame of each transition's next observation."""
        return self.rows + self.n_step - 1

    def sample(self, batch_size: int, rng: np.random.Generator, shift: bool = True) -> Transition:
        """Draw ``batch_size`` transitions uniformly, each observation with a random shift of its own.

        A function of ``rng`` alone. Observations are (B, frame_stack * C, H, W) uint8, action (B, A), reward
        (B, 1) and discount (B, 1) float32.
        """
        index = rng.integers(0, self.num_transitions, batch_size)
        return self.gather(index, self.draw_shifts((2, batch_size), rng) if shift else None)

    def draw_shifts(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int64]:
        """Uniform shifts (*shape, 2), whole pixels (x, y) from 0 to 2 * pad."""
        return rng.integers(0, 2 * self.pad + 1, (*shape, 2))

    def gather(self, index: ArrayLike, shifts: ArrayLike | None = None) -> Transition:
        """Transitions ``index`` (B,), both observations shifted by ``shifts`` (2, B, 2) or not at all."""
        chosen = np.asarray(index, np.int64)
        at, after = (None, None) if shifts is None else np.asarray(shifts, np.int64)
        where = torch.from_numpy(chosen)
        return Transition(
            observation=self.frames_at(self.observation_rows[chosen], at),
            action=self.action[where],
            reward=self.reward[where],
            next_observation=self.frames_at(self.next_rows[chosen], after),
            discount=self.discount[where],
        )

    def frames_at(self, rows: ArrayLike, shifts: ArrayLike | None = None) -> Tensor:
        """Observations (B, frame_stack * C, H, W) uint8 that end in the rows (B,) of ``episodes``.

        ``shifts`` (B, 2) are (x, y) in pixels from 0 to 2 * pad, the same for all frames of a stack: the
        result is ``padded[..., y : y + H, x : x + W]``. None is no shift, (pad, pad). Raises `ConfigError`
        outside that range.
        """
        return self._frames.stacks(stack_rows(rows, self.episodes.lengths, self.frame_stack), shifts)


class PaddedFrames:
    """Frames stored with replicated edges (N, C, P, Q) uint8, gathered as randomly shifted stacks.

    They are looked at as one overlapping row of W bytes for each byte, see the module.

    Args:
        padded: the frames; they may be mapped, and still be written to.
        size: height and width of a frame without its edges.
        pad: largest shift in pixels; an unshifted frame lies at (pad, pad).
    """

    def __init__(self, padded: Tensor, size: tuple[int, ...], pad: int) -> None:
        self.pad = pad
        height, width = size
        pixels = padded.reshape(-1)
        self._lines = pixels.as_strided((pixels.numel() - width + 1, width), (1, 1))
        _, channels, tall, self._line_stride = padded.shape
        self._frame_stride = channels * tall * self._line_stride
        self._origin = (padded.shape[3] - width) // 2 - pad  # where the shift (0, 0) begins
        starts = np.arange(channels)[:, None] * tall + np.arange(height)
        self._line_starts = torch.from_numpy(starts.reshape(-1) * self._line_stride)
        self._shape = (channels, height, width)

    def stacks(self, frames: NDArray[np.int64], shifts: ArrayLike | None = None) -> Tensor:
        """Observations (B, S * C, H, W) uint8 of the frames (B, S), shifted as `PixelReplay.frames_at` says."""
        corner = np.full((len(frames), 2), self.pad) if shifts is None else np.asarray(shifts, np.int64)
        if corner.size and (corner.min() < 0 or corner.max() > 2 * self.pad):
            raise ConfigError(
                f"shifts reach from {corner.min()} to {corner.max()}: keep them in 0 ... {2 * self.pad}"
            )
        corner = corner + self._origin
        offset = corner[:, 0] + corner[:, 1] * self._line_stride
        starts = torch.from_numpy(frames * self._frame_stride + offset[:, None])
        lines = torch.index_select(self._lines, 0, (starts[:, :, None] + self._line_starts).view(-1))
        channels, height, width = self._shape
        return lines.view(len(frames), frames.shape[1] * channels, height, width)
