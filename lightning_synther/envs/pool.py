"""Several environments stepped together, spread over processes so that every core renders.

Software rendering bounds the speed (about 20 ms an image), so results simply travel through the sockets: 63
kB per environment and step, well below a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_synther.envs.config import EnvConfig, Environment, StepResult
from lightning_synther.envs.factory import make_env
from lightning_synther.envs.worker import start_workers
from lightning_synther.errors import ConfigError


class BatchStep(NamedTuple):
    """What n actions led to: observation (n, ...), reward (n,) and discount (n,) float32, last (n,) bool."""

    observation: NDArray[Any]
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    last: NDArray[np.bool_]


class EnvHost:
    """The environments of one worker: the first built at once, the others when they are first reset."""

    def __init__(self, config: EnvConfig) -> None:
        self._config = config
        self._envs: dict[int, Environment] = {}
        self._spare: Environment | None = make_env(config)

    def describe(self) -> tuple[tuple[int, ...], int, int | None]:
        """(observation shape, action dimension, step limit) of the task."""
        env = self._spare or next(iter(self._envs.values()))
        return env.observation_shape, env.action_dim, env.max_steps

    def reset(self, index: Sequence[int], seeds: Sequence[int | None]) -> list[NDArray[Any]]:
        """Begin the seeds' episodes in the environments ``index``."""
        return [self._env(i).reset(seed) for i, seed in zip(index, seeds, strict=True)]

    def step(self, index: Sequence[int], actions: NDArray[Any]) -> list[StepResult]:
        """Step the environments ``index``."""
        return [self._envs[i].step(action) for i, action in zip(index, actions, strict=True)]

    def render(self, index: Sequence[int], size: int) -> list[NDArray[np.uint8]]:
        """Images of the environments ``index``."""
        return [self._envs[i].render(size) for i in index]

    def close(self) -> None:
        """Free the environments."""
        for env in self._envs.values():
            env.close()

    def _env(self, index: int) -> Environment:
        if index not in self._envs:
            self._envs[index], self._spare = self._spare or make_env(self._config), None
        return self._envs[index]


class EnvPool:
    """``num_envs`` environments of one configuration in ``num_workers`` processes (0: in the caller's).

    Environments are dealt to the workers in turn. What they return does not depend on the number of workers.
    Use it as a context manager: the processes end with it, and also when the calling process dies.
    """

    def __init__(self, config: EnvConfig, num_envs: int, num_workers: int = 2) -> None:
        if num_envs < 1 or num_workers < 0:
            raise ConfigError(
                f"a pool of {num_envs} environments in {num_workers} workers cannot be: "
                f"give num_envs 1 or more and num_workers 0 (no extra process) or more"
            )
        self.config, self.num_envs = config, num_envs
        self._workers = start_workers(min(num_workers, num_envs), EnvHost, config)
        try:
            self._workers[0].send("describe")
            self.observation_shape, self.action_dim, self.max_steps = self._workers[0].receive()
        except BaseException:
            self.close()
            raise

    def reset(self, seeds: Sequence[int | None], active: Sequence[int] | None = None) -> NDArray[Any]:
        """Begin the episodes of ``seeds`` in the environments ``active`` (default: all).

        Returns the first observations (n, ...). An environment given None goes on with the stream of its last
        seed.
        """
        index = self._active(active, len(seeds))
        return np.stack(self._call("reset", index, list(seeds)))

    def step(self, actions: ArrayLike, active: Sequence[int] | None = None) -> BatchStep:
        """Apply ``actions`` (n, A), one row to each environment of ``active`` (default: all)."""
        rows = np.asarray(actions)
        results = self._call("step", self._active(active, len(rows)), rows)
        observation, reward, discount, last = zip(*results, strict=True)
        return BatchStep(
            np.stack(observation),
            np.array(reward, np.float32),
            np.array(discount, np.float32),
            np.array(last),
        )

    def render(self, size: int, active: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Images (n, size, size, 3) of the environments ``active`` (default: all)."""
        index = list(range(self.num_envs) if active is None else active)
        return np.stack(self._call("render", index, None, size))

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _active(self, active: Sequence[int] | None, num_rows: int) -> list[int]:
        index = list(range(self.num_envs) if active is None else active)
        if len(index) != num_rows:
            raise ConfigError(
                f"{num_rows} rows were given for {len(index)} environments: "
                f"give one row for each active environment"
            )
        return index

    def _call(self, method: str, index: list[int], rows: Any, *args: Any) -> list[Any]:
        """Let the workers run ``method`` at the same time; results in the order of ``index``."""
        shares = [
            [row for row, i in enumerate(index) if i % len(self._workers) == w]
            for w in range(len(self._workers))
        ]
        busy = [(worker, share) for worker, share in zip(self._workers, shares, strict=True) if share]
        for worker, share in busy:
            part = [] if rows is None else [[rows[row] for row in share]]
            worker.send(method, [index[row] for row in share], *part, *args)
        results: list[Any] = [None] * len(index)
        for worker, share in busy:
            for row, result in zip(share, worker.receive(), strict=True):
                results[row] = result
        return results
