"""A plain pixel replay of the published kind, written from the description of its behaviour.

Loading: whole arrays by h5py, then one dm_env time step after the other into a ring of single frames.
Sampling: numpy gathers of stacks, then the random shift of DrQ-v2 as bilinear `grid_sample` on
replicate-padded floats.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import dm_env
import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Step(NamedTuple):
    """A dm_env time step with the action that led to it."""

    step_type: dm_env.StepType
    reward: float
    discount: float
    observation: np.ndarray
    action: np.ndarray

    def first(self) -> bool:
        """Whether an episode starts here."""
        return self.step_type == dm_env.StepType.FIRST


class RingReplay:
    """Frames in slots; a valid slot denotes the transition whose action it stores."""

    def __init__(self, capacity: int, frame_stack: int, n_step: int, gamma: float) -> None:
        self.capacity, self.frame_stack, self.n_step, self.gamma = capacity, frame_stack, n_step, gamma
        self.pointer = self.since_first = 0
        self.frames: np.ndarray | None = None

    def add(self, step: Step) -> None:
        """Write one time step."""
        if self.frames is None:
            self.frames = np.empty((self.capacity, *step.observation.shape), np.uint8)
            self.action = np.empty((self.capacity, *step.action.shape), np.float32)
            self.reward = np.empty(self.capacity, np.float32)
            self.discount = np.empty(self.capacity, np.float32)
            self.valid = np.zeros(self.capacity, bool)
        if step.first():
            for slot in range(self.pointer, self.pointer + self.frame_stack):
                self.frames[slot % self.capacity] = step.observation
            for slot in range(self.pointer, self.pointer + 2 * self.frame_stack + 1):
                self.valid[slot % self.capacity] = False
            self.pointer = (self.pointer + self.frame_stack) % self.capacity
            self.since_first = 1
            return
        self.frames[self.pointer] = step.observation
        self.action[self.pointer] = step.action
        self.reward[self.pointer] = step.reward
        self.discount[self.pointer] = step.discount
        self.valid[(self.pointer + self.frame_stack) % self.capacity] = False
        if self.since_first >= self.n_step:
            self.valid[(self.pointer - self.n_step + 1) % self.capacity] = True
        self.pointer = (self.pointer + 1) % self.capacity
        self.since_first += 1

    def gather(self, slots: np.ndarray) -> tuple[np.ndarray, ...]:
        """Observation, action, reward, discount and next observation of valid slots."""
        assert self.frames is not None
        stack = np.arange(-self.frame_stack, 0)
        obs = self.frames[(slots[:, None] + stack) % self.capacity]
        next_obs = self.frames[(slots[:, None] + stack + self.n_step) % self.capacity]
        window = (slots[:, None] + np.arange(self.n_step)) % self.capacity
        reward = np.sum(self.reward[window] * self.gamma ** np.arange(self.n_step), axis=1, keepdims=True)
        discount = np.float32(self.gamma**self.n_step) * self.discount[window[:, -1:]]
        shape = (len(slots), -1, *obs.shape[-2:])
        return obs.reshape(shape), self.action[slots], reward, discount, next_obs.reshape(shape)

    def sample(self, batch_size: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Uniform over valid slots, with replacement."""
        return self.gather(rng.choice(np.flatnonzero(self.valid), batch_size))


def load(path: Path, frame_stack: int = 3, n_step: int = 3, gamma: float = 0.99) -> RingReplay:
    """Fill a ring with the episodes of one file."""
    with h5py.File(path, "r") as file:
        arrays = {key: file[key][:] for key in ("observation", "action", "reward", "discount", "step_type")}
    num_rows = len(arrays["reward"])
    num_episodes = int((arrays["step_type"] == 0).sum())
    ring = RingReplay(num_rows + frame_stack * num_episodes + 1, frame_stack, n_step, gamma)
    for t in range(num_rows):
        step = Step(
            step_type=dm_env.StepType(int(arrays["step_type"][t])),
            reward=arrays["reward"][t],
            discount=arrays["discount"][t],
            observation=arrays["observation"][t],
            action=arrays["action"][t],
        )
        ring.add(step)
    return ring


def random_shift(x: Tensor, shifts: Tensor, pad: int = 4) -> Tensor:
    """Shift float images (n, C, h, h) by whole pixels ``shifts`` (n, 2) through bilinear resampling."""
    n, _, h, _ = x.shape
    x = F.pad(x, (pad, pad, pad, pad), "replicate")
    side = h + 2 * pad
    centres = torch.linspace(-1 + 1 / side, 1 - 1 / side, side)[:h]
    grid = torch.stack([centres.expand(h, h), centres[:, None].expand(h, h)], dim=-1).expand(n, h, h, 2)
    return F.grid_sample(
        x, grid + shifts[:, None, None] * (2 / side), padding_mode="zeros", align_corners=False
    )
