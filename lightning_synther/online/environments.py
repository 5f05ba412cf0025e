"""Environments that an online run steps in its own process, and the replay memory that they fill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_synther.envs.config import EnvConfig, StepResult
from lightning_synther.envs.factory import make_env
from lightning_synther.online.replay import Replay
from lightning_synther.online.replay_recorder import LedTo, ReplayRecorder, recorder_of
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import Transition

Floats = NDArray[np.float32]
Explore = Callable[[Floats, Floats], Floats]


class Environments:
    """``num_envs`` environments stepped together, one agent step each, without rendering.

    Everything drawn is a function of (seed, rank, counter): the actions' noise of the number of steps taken,
    an episode's start of its number. A checkpoint does not hold physics states: they are reached again by
    playing the actions of the unfinished episodes, which takes a fraction of a second.

    An episode that ends at its first step is one transition like any other: its discount is 0 where the environment
    ended it for good, and the next episode begins.

    Args:
        config: the environment.
        num_envs: how many of it.
        capacity: transitions that are kept.
        gamma: discount of an agent step.
        seed: of everything drawn.
        rank: of this process.
        replay_path: file of the replay memory; None keeps it in the process.
        max_steps: agent steps that will ever be taken, for that file.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        capacity: int,
        gamma: float,
        seed: int,
        rank: int = 0,
        replay_path: Path | None = None,
        max_steps: int = 0,
    ) -> None:
        self._envs = [make_env(config, seed=i) for i in range(num_envs)]
        self.action_dim = self._envs[0].action_dim
        self.observation_shape = self._envs[0].observation_shape
        self.capacity, self.replay_path, self.max_steps = capacity, replay_path, max_steps
        self.gamma, self.seed, self.rank = gamma, seed, rank
        self.num_steps = 0
        self._num_episodes = 0
        self._episodes = [0] * num_envs
        self._actions: list[list[Floats]] = [[] for _ in self._envs]
        self._returns = np.zeros(num_envs)
        self.recorder: ReplayRecorder | None = None
        self.make_replay()
        self._states = np.stack([self._reset(i) for i in range(num_envs)])

    def __len__(self) -> int:
        return len(self._envs)

    def make_replay(self) -> None:
        """Make the replay memory, before the first episodes begin."""
        self.replay = Replay(
            self.capacity, self.observation_shape[0], self.action_dim, self.replay_path, self.max_steps
        )

    def collect(self, num_steps: int, explore: Explore | None) -> list[float]:
        """Take at least ``num_steps`` agent steps, all environments together; returns of episodes that ended.

        ``explore(states (N, S), noise (N, A)) -> actions (N, A)`` gets standard normal noise; without it the
        actions are uniform in [-1, 1].
        """
        finished: list[float] = []
        for _ in range(0, num_steps, len(self)):
            rng = np.random.default_rng(derive_seed(self.seed, "explore", self.rank, self.num_steps))
            shape = (len(self), self.action_dim)
            if explore is None:
                actions = rng.uniform(-1, 1, shape).astype(np.float32)
            else:
                actions = explore(self._states, rng.standard_normal(shape, dtype=np.float32))
            finished += self._step(actions)
        return finished

    def record(self, path: str | Path) -> None:
        """Record physics states and what led to them from here on, as a `Recording` in the folder ``path``.

        Where steps were taken before, the recording of those must be there. Raises `ConfigError` where it is
        not, or where another recording is in the way.
        """
        num_rows = self.num_steps + self._num_episodes if self.num_steps else 0
        self.recorder = recorder_of(path, self._envs[0], self.seed, num_rows)
        if not num_rows:
            for i in range(len(self)):
                self._record_reset(i)

    def state_dict(self) -> dict[str, Any]:
        """Counters, unfinished episodes and the replay memory, as plain types and tensors."""
        if self.recorder is not None:
            self.recorder.flush()
        return {
            "num_steps": self.num_steps,
            "num_episodes": self._num_episodes,
            "episodes": list(self._episodes),
            "actions": [torch.from_numpy(np.array(taken, np.float32)) for taken in self._actions],
            "replay": self.replay.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: the unfinished episodes are played again up to there."""
        self.replay.load_state_dict(state["replay"])
        self.num_steps, self._num_episodes = state["num_steps"], state["num_episodes"]
        self._episodes = list(state["episodes"])
        for i, (env, actions) in enumerate(zip(self._envs, state["actions"], strict=True)):
            self._returns[i], self._actions[i] = 0.0, list(actions.numpy())
            self._states[i] = env.reset(self._episode_seed(i))
            for action in self._actions[i]:
                result = env.step(action)
                self._states[i] = result.observation
                self._returns[i] += result.reward

    def _step(self, actions: Floats) -> list[float]:
        results = [env.step(action) for env, action in zip(self._envs, actions, strict=True)]
        self.store(actions, results)
        self.num_steps += len(self)
        self._states = np.stack([result.observation for result in results])
        finished = []
        for i, result in enumerate(results):
            self._returns[i] += result.reward
            self._actions[i].append(actions[i])
            led_to = (actions[i], result.reward, result.discount, result.last)
            self._record(i, len(self._actions[i]), led_to)
            if result.last:
                finished.append(float(self._returns[i]))
                self._states[i] = self._reset(i)
        return finished

    def store(self, actions: Floats, results: list[StepResult]) -> None:
        """Bring one step of every environment, from the states before it, into the replay memory."""
        next_states = np.stack([result.observation for result in results])
        reward = np.array([[result.reward] for result in results], np.float32)
        discount = np.array([[self.gamma * result.discount] for result in results], np.float32)
        fields = (self._states, actions, reward, next_states, discount)
        self.replay.add(Transition(*map(torch.from_numpy, fields)))

    def store_reset(self, observation: NDArray[Any]) -> None:
        """Bring the first observation of an episode into the replay memory; transitions of states hold it."""

    def _reset(self, i: int) -> Floats:
        self._episodes[i] = self._num_episodes
        self._num_episodes += 1
        self._returns[i], self._actions[i] = 0.0, []
        state: Floats = self._envs[i].reset(self._episode_seed(i))
        self.store_reset(state)
        self._record_reset(i)
        return state

    def _record_reset(self, i: int) -> None:
        self._record(i, 0, (np.zeros(self.action_dim, np.float32), 0.0, 1.0, False))

    def _record(self, i: int, step: int, led_to: LedTo) -> None:
        if self.recorder is not None:
            self.recorder.add(self._envs[i], self._episodes[i], self._episode_seed(i), step, led_to)

    def _episode_seed(self, i: int) -> int:
        return derive_seed(self.seed, "episode", self.rank, self._episodes[i])
