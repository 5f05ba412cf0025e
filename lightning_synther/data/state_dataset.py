"""Offline data for agents on states: whole transitions of vectors, by episode, with what they were recorded in.

Every format (`lightning_synther.data.state_formats`) is read into a `StateDataset`, and a `StateDataset` writes
the store that diffusion models and agents train on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lightning_synther.data.conditions import available_conditions, read_condition, write_condition
from lightning_synther.data.rewards import describe_episodes
from lightning_synther.data.state_arrays import Rows, rescale_actions, select, whole_transitions
from lightning_synther.data.state_env import PLAYED, env_settings, played_env
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import Existing, StoreWriter
from lightning_synther.data.subset import Subset, Unit
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.transition import Transition, TransitionSpec

CHUNK = 65_536  # rows written at a time
EPISODE = "episode"  # the condition of a store that numbers its episodes


@dataclass(frozen=True)
class StateDataset(Rows):
    """N transitions of vectors (`Rows`), and what they are.

    Attributes:
        name: what the data are called, in messages and metadata.
        env: the environment they were recorded in (fields of `EnvConfig`), or None.
        reference_scores: returns that count as 0 and as 100, or None.
    """

    name: str = "arrays"
    env: dict[str, Any] | None = None
    reference_scores: tuple[float, float] | None = None

    @classmethod
    def from_arrays(
        cls,
        observations: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        terminals: ArrayLike | None,
        timeouts: ArrayLike | None = None,
        next_observations: ArrayLike | None = None,
        episodes: ArrayLike | None = None,
        *,
        action_low: ArrayLike | None = None,
        action_high: ArrayLike | None = None,
        max_episode_steps: int | None = None,
        name: str = "arrays",
        env: str | Mapping[str, Any] | None = None,
        reference_scores: tuple[float, float] | None = None,
    ) -> StateDataset:
        """Transitions of plain arrays of D4RL's names: row i is what was done at, and followed, observation i.

        Args:
            observations: (N, O).
            actions: (N, A), between ``action_low`` and ``action_high``.
            rewards: (N,) or (N, 1).
            terminals: (N,), 1 where the environment ended for good; zeros where it never does.
            timeouts: (N,), 1 at the last row of an episode that a time limit ended.
            next_observations: (N, O); derived within episodes where absent (`whole_transitions` has the rules).
            episodes: (N,) numbers of the episodes, for data that know them: nothing else then ends one.
            action_low: lower bounds of the actions, a number or (A,) (None: -1); other bounds than [-1, 1] are
                mapped to [-1, 1].
            action_high: upper bounds (None: 1).
            max_episode_steps: length at which an episode ends where nothing else says so.
            name: what messages call the data.
            env: the environment they come from: its task, or fields of `EnvConfig`.
            reference_scores: returns that count as 0 and as 100.

        Raises:
            DataError: arrays are missing, empty, of unequal length, not finite, images, or beyond the bounds.
        """
        arrays = {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "terminals": terminals,
            "timeouts": timeouts,
            "next_observations": next_observations,
            "episodes": episodes,
        }
        rows = whole_transitions(arrays, name, max_episode_steps)
        rows = replace(rows, action=rescale_actions(rows.action, action_low, action_high, name))
        return cls(**vars(rows), name=name, env=env_settings(env), reference_scores=reference_scores)

    @classmethod
    def of_store(cls, path: str | Path) -> StateDataset:
        """The transitions of a store that `write` or ``collect-states`` wrote.

        Raises `DataError` for a store of n-step returns, or one that does not number its episodes.
        """
        store = TransitionStore.open(path)
        extra = store.metadata.extra
        if extra.get("n_step", 1) != 1 or EPISODE not in available_conditions(path):
            raise DataError(
                f"the store {path} holds no single steps by episode (n_step {extra.get('n_step', 1)}, conditions "
                f"{available_conditions(path)}): give one that StateDataset.write or collect-states wrote"
            )
        parts, known = store.spec.unflatten(store.load()), extra.get("reference_scores")
        env = played_env(extra)
        return cls(
            parts.observation.numpy(),
            parts.action.numpy(),
            parts.reward.numpy(),
            parts.next_observation.numpy(),
            (parts.discount == 0).numpy(),
            read_condition(path, EPISODE)[:, 0].numpy().astype(np.int64),
            name=str(extra.get("name", path)),
            env=env and {key: value for key, value in env.items() if key != "reference_scores"},
            reference_scores=known and (known[0], known[1]),
        )

    @property
    def num_episodes(self) -> int:
        """Number of episodes, unfinished ones included."""
        return int(self.episode[-1]) + 1

    @property
    def returns(self) -> NDArray[np.float64]:
        """Undiscounted return of each episode's transitions, (E,)."""
        return np.bincount(self.episode, weights=self.reward[:, 0]).astype(np.float64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of transitions of each episode, (E,)."""
        return np.bincount(self.episode).astype(np.int64)

    @property
    def scored_env(self) -> dict[str, Any] | None:
        """`env` with the reference scores, so that an agent that holds it gives normalised scores by itself."""
        if self.env is None or self.reference_scores is None:
            return self.env
        return {**self.env, "reference_scores": list(self.reference_scores)}

    @property
    def fingerprint(self) -> str:
        """Hash of every number, so that stores made of other data are told apart."""
        digest = hashlib.blake2b(digest_size=8)
        for part in fields(Rows):
            digest.update(np.ascontiguousarray(getattr(self, part.name)).data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.episode)

    def fraction(self, share: float, of: Unit = "episodes", seed: int = 0) -> StateDataset:
        """A random ``share`` of the whole episodes, or of the transitions, in their order.

        With the same ``seed``, a smaller share is part of a larger one. Raises `ConfigError` for a share outside
        (0, 1], or one that leaves nothing.
        """
        return self.part(Subset(share, of, seed=seed))

    def part(self, subset: Subset) -> StateDataset:
        """The transitions of ``subset``, in their order; raises `ConfigError` where it is empty or too large."""
        if subset.is_whole:
            return self
        if subset.fraction_of == "transitions":
            return self._selected(subset.choose(len(self), self.name))
        episodes = subset.choose(self.num_episodes, self.name)
        return self._selected(np.flatnonzero(np.isin(self.episode, episodes)))

    def split_episodes(self, holdout_fraction: float) -> tuple[StateDataset, StateDataset | None]:
        """The data without, and only, the last so many whole episodes (rounded up); None for a fraction of 0.

        Raises `ConfigError` for a fraction outside [0, 1), or one that leaves no episode to train on.
        """
        if not 0.0 <= holdout_fraction < 1.0:
            raise ConfigError(f"holdout_fraction is {holdout_fraction}: give a share in [0, 1)")
        kept = self.num_episodes - math.ceil(holdout_fraction * self.num_episodes)
        if not kept:
            raise ConfigError(
                f"holdout_fraction {holdout_fraction:g} of the {self.num_episodes} episodes of {self.name} leaves "
                "none to train on: use more episodes, or give 0"
            )
        if kept == self.num_episodes:
            return self, None
        start = int(np.searchsorted(self.episode, kept))
        return self._selected(np.arange(start)), self._selected(np.arange(start, len(self)))

    def spec(self, gamma: float = 0.99, terminal: bool | None = None) -> TransitionSpec:
        """Layout of the rows; with a terminal column where any transition is one, or where it is asked for.

        Raises `ConfigError` where it is declined, but there are terminals.
        """
        ends = bool(self.terminal.any())
        if ends and terminal is False:
            raise ConfigError(
                f"terminal is False, but {self.name} has {int(self.terminal.sum())} terminals: leave it out"
            )
        return TransitionSpec(
            self.observation.shape[1], self.action.shape[1], gamma, ends if terminal is None else terminal
        )

    def transitions(self, gamma: float = 0.99, part: slice = slice(None)) -> Transition:
        """The transitions (N, ...), or a ``part`` of them, as tensors that share memory with the arrays."""
        return Transition(
            observation=torch.from_numpy(self.observation[part]),
            action=torch.from_numpy(self.action[part]),
            reward=torch.from_numpy(self.reward[part]),
            next_observation=torch.from_numpy(self.next_observation[part]),
            discount=torch.where(torch.from_numpy(self.terminal[part]), 0.0, gamma),
        )

    def write(
        self,
        path: str | Path,
        gamma: float = 0.99,
        *,
        terminal: bool | None = None,
        existing: Existing = "error",
    ) -> TransitionStore:
        """Write the transitions as the store ``path``, their episodes as its condition ``episode``, and open it.

        The metadata name the environment and the reference scores, so that an agent trained on the store is
        evaluated there.
        """
        spec = self.spec(gamma, terminal)
        writer = StoreWriter(
            path,
            spec,
            len(self),
            seed=0,
            producer="StateDataset",
            fingerprint=f"{self.name} {self.fingerprint}",
            chunk_size=CHUNK,
            extra=self._extra(gamma),
            existing=existing,
        )
        with writer:
            for index in writer.pending_chunks:
                writer.write(index, spec.flatten(self.transitions(gamma, writer.chunk(index))))
            store = writer.commit()
        write_condition(path, EPISODE, self.episode)
        return store

    def _extra(self, gamma: float) -> dict[str, Any]:
        extra: dict[str, Any] = {"name": self.name, "n_step": 1, "gamma": gamma}
        if self.env is not None:
            extra |= {key: self.env[key] for key in PLAYED if key in self.env} | {"env": self.scored_env}
        if self.reference_scores is not None:
            extra["reference_scores"] = list(self.reference_scores)
        return extra | describe_episodes(self.returns, self.lengths)

    def _selected(self, index: NDArray[np.int64]) -> StateDataset:
        return replace(self, **vars(select(self, index)))
