"""A dataset in memory or mapped from disk: episodes laid end to end, one row for each observation.

Row t of an episode holds observation t together with the action, reward and discount that *led to* it. Row
0 is the reset: its action and reward are zeros and mean nothing. This is V-D4RL's alignment (Lu et al. 2022,
arXiv 2206.04779); ``windows`` is the only place that turns it into transitions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightning_synther.errors import DataError


@dataclass(frozen=True)
class Episodes:
    """E episodes of N observations in all.

    Attributes:
        frames: (N, C, H, W) uint8; may be a window on ``padded``, and may be mapped from disk.
        action: (N, A) float32 in [-1, 1].
        reward: (N,) float32.
        discount: (N,) float32, the environment's own; 0 ends an episode for good.
        lengths: (E,) int64, observations in each episode; they sum to N.
        task: dm_control name such as ``cheetah_run``; empty where it is not known.
        padded: (N, C, H + 2p, W + 2p) uint8, the frames with their edges replicated by p pixels, so that a
            randomly shifted frame is a plain crop of it; None where nobody has padded them yet.
    """

    frames: NDArray[np.uint8]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    lengths: NDArray[np.int64]
    task: str = ""
    padded: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        num_rows = int(self.lengths.sum())
        found = {name: len(getattr(self, name)) for name in ("frames", "action", "reward", "discount")}
        if set(found.values()) != {num_rows}:
            raise DataError(
                f"episode lengths add up to {num_rows} rows, the arrays have {found}: cut them alike"
            )

    @classmethod
    def from_padded(
        cls,
        padded: NDArray[np.uint8],
        pad: int,
        *,
        action: NDArray[np.float32],
        reward: NDArray[np.float32],
        discount: NDArray[np.float32],
        lengths: NDArray[np.int64],
        task: str = "",
    ) -> Episodes:
        """Episodes whose frames are the inside of replicate-padded ones (N, C, H + 2 pad, W + 2 pad)."""
        height, width = padded.shape[2] - pad, padded.shape[3] - pad
        frames = padded[:, :, pad:height, pad:width]
        return cls(frames, action, reward, discount, lengths, task, padded)

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.lengths)

    @property
    def num_transitions(self) -> int:
        """One-step transitions, N - E: a reset row is the end of none."""
        return int(self.lengths.sum()) - self.num_episodes

    @property
    def action_dim(self) -> int:
        """A."""
        return int(self.action.shape[1])

    @property
    def image_size(self) -> int:
        """Height and width of a frame in pixels."""
        return int(self.frames.shape[-1])

    @property
    def starts(self) -> NDArray[np.int64]:
        """(E,) row of every episode's reset."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def returns(self) -> NDArray[np.float64]:
        """(E,) undiscounted sum of each episode's rewards, the reset's left out."""
        if self.num_episodes == 0:
            return np.zeros(0)
        reward = self.reward.astype(np.float64)
        return np.add.reduceat(reward, self.starts) - reward[self.starts]

    def first(self, num_episodes: int) -> Episodes:
        """The first ``num_episodes`` episodes (all, where there are fewer), as views."""
        lengths = self.lengths[:num_episodes]
        rows = int(lengths.sum())
        return replace(
            self,
            frames=self.frames[:rows],
            action=self.action[:rows],
            reward=self.reward[:rows],
            discount=self.discount[:rows],
            lengths=lengths,
            padded=None if self.padded is None else self.padded[:rows],
        )

    def fingerprint(self) -> str:
        """Hexadecimal BLAKE2b of everything but the pixels: of those gigabytes only the shape is taken."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.task, self.frames.shape, self.action.shape)).encode())
        for array in (self.lengths, self.action, self.reward, self.discount):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def replicate_edges(padded: NDArray[np.uint8], pad: int) -> None:
    """Fill the margin of ``padded`` (N, C, H + 2 pad, W + 2 pad) with the nearest inner pixels, in place."""
    if pad == 0:
        return
    item = f"V{pad}"  # a margin's row is moved as one item: numpy copies single bytes four times slower
    for start in range(0, len(padded), 32):  # as many frames as the processor's cache holds
        block = padded[start : start + 32]
        for margin, edge in ((block[..., :pad], block[..., pad]), (block[..., -pad:], block[..., -1 - pad])):
            margin.view(item)[..., 0] = np.repeat(edge[..., None], pad, axis=-1).view(item)[..., 0]
        block[:, :, :pad] = block[:, :, pad : pad + 1]
        block[:, :, -pad:] = block[:, :, -1 - pad : -pad]


def pad_frames(frames: NDArray[np.uint8], pad: int) -> NDArray[np.uint8]:
    """Frames (N, C, H, W) with replicated edges, (N, C, H + 2 pad, W + 2 pad)."""
    num_rows, channels, height, width = frames.shape
    padded = np.empty((num_rows, channels, height + 2 * pad, width + 2 * pad), np.uint8)
    padded[:, :, pad : pad + height, pad : pad + width] = frames
    replicate_edges(padded, pad)
    return padded
