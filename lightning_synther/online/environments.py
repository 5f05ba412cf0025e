"""Environments that an online run steps in its own process, and the replay memory that they fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.online.replay import RingReplay
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import Transition

Floats = NDArray[np.float32]
Explore = Callable[[Floats, Floats], Floats]


class Environments:
    """``num_envs`` environments stepped together, one agent step each, without rendering.

    Everything drawn is a function of (seed, rank, counter): the actions' noise of the number of steps taken,
    an episode's start of its number. A checkpoint does not hold physics states: they are reached again by
    playing the actions of the unfinished episodes, which takes a fraction of a second.
    """

    def __init__(
        self, config: EnvConfig, num_envs: int, capacity: int, gamma: float, seed: int, rank: int = 0
    ) -> None:
        self._envs = [ControlEnv(config, seed=i) for i in range(num_envs)]
        self.action_dim = self._envs[0].action_dim
        self.observation_dim = self._envs[0].observation_shape[0]
        self.replay = RingReplay(capacity, self.observation_dim, self.action_dim)
        self.gamma, self.seed, self.rank = gamma, seed, rank
        self.num_steps = 0
        self._num_episodes = 0
        self._episodes = [0] * num_envs
        self._actions: list[list[Floats]] = [[] for _ in self._envs]
        self._returns = np.zeros(num_envs)
        self._states = np.stack([self._reset(i) for i in range(num_envs)])

    def __len__(self) -> int:
        return len(self._envs)

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

    def state_dict(self) -> dict[str, Any]:
        """Counters, unfinished episodes and the replay memory, as plain types and tensors."""
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
        next_states = np.stack([result.observation for result in results])
        reward = np.array([[result.reward] for result in results], np.float32)
        discount = np.array([[self.gamma * result.discount] for result in results], np.float32)
        fields = (self._states, actions, reward, next_states, discount)
        self.replay.add(Transition(*map(torch.from_numpy, fields)))
        self.num_steps += len(self)
        self._states = next_states
        finished = []
        for i, result in enumerate(results):
            self._returns[i] += result.reward
            self._actions[i].append(actions[i])
            if result.last:
                finished.append(float(self._returns[i]))
                self._states[i] = self._reset(i)
        return finished

    def _reset(self, i: int) -> Floats:
        self._episodes[i] = self._num_episodes
        self._num_episodes += 1
        self._returns[i], self._actions[i] = 0.0, []
        return self._envs[i].reset(self._episode_seed(i))

    def _episode_seed(self, i: int) -> int:
        return derive_seed(self.seed, "episode", self.rank, self._episodes[i])
