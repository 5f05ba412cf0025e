"""Play a behaviour policy's episodes in worker processes; each is written where it was played."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.vd4rl import NpzWriter
from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.envs.worker import start_workers, wait_for_any
from lightning_synther.errors import BackendError
from lightning_synther.online.policies import load_policy
from lightning_synther.seeding import derive_seed

_STEPS_PER_CALL = 25  # between two signs of life of a worker, about half a second


class EpisodeRecorder:
    """Lives in a worker: plays one episode after another and writes each to ``directory`` as an NPZ file.

    Episode i depends on ``seed`` and i alone: its start, and the noise of its actions. The policy sees
    states, the file gets images. ``policy`` is a name or a file, as for `load_policy`.
    """

    def __init__(self, config: EnvConfig, policy: str, seed: int, directory: Path) -> None:
        self._env = ControlEnv(config)
        self._policy = load_policy(policy, config.task)
        self._seed, self._directory = seed, directory

    def begin(self, index: int) -> tuple[int, bool]:
        """Reset to episode ``index``; returns like `advance`.

        Row 0 has no action and reward; its discount is 1 by V-D4RL's convention.
        """
        self._index = index
        self._noise = np.random.default_rng(derive_seed(self._seed, "collect action", index))
        self._frames = [self._env.reset(derive_seed(self._seed, "collect episode", index))]
        self._actions: list[NDArray[np.float32]] = [np.zeros(self._env.action_dim, np.float32)]
        self._rewards, self._discounts = [0.0], [1.0]
        return 1, False

    def advance(self, num_steps: int) -> tuple[int, bool]:
        """Take up to ``num_steps`` actions; (frames rendered, whether the episode is over and written)."""
        for step in range(1, num_steps + 1):
            action = self._policy.act(self._env.state()[None], self._noise)[0]
            frame, reward, discount, last = self._env.step(action)
            self._frames.append(frame)
            self._actions.append(action)
            self._rewards.append(reward)
            self._discounts.append(discount)
            if last:
                with writing(self._directory):
                    NpzWriter(self._directory, first=self._index).append(
                        np.stack(self._frames), np.stack(self._actions), self._rewards, self._discounts
                    )
                return step, True
        return num_steps, False

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


def record_episodes(
    config: EnvConfig, policy: str, seed: int, directory: Path, indices: Sequence[int], num_workers: int
) -> Iterator[tuple[int, bool]]:
    """Write the episodes ``indices`` to ``directory``; yields (frames rendered, whether one was finished).

    The workers go on while the caller looks at what was yielded; they end with the iterator.
    """
    waiting = deque(indices)
    count = min(num_workers, len(waiting))
    workers = start_workers(count, EpisodeRecorder, config, policy, seed, directory) if waiting else []
    try:
        for worker in workers:
            worker.send("begin", waiting.popleft())
        busy = list(workers)
        while busy:
            for worker in wait_for_any(busy):
                num_frames, finished = worker.receive()
                if not finished:
                    worker.send("advance", _STEPS_PER_CALL)
                elif waiting:
                    worker.send("begin", waiting.popleft())
                else:
                    busy.remove(worker)
                yield num_frames, finished
    finally:
        for worker in workers:
            worker.close()


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn a failed write below ``directory`` into one sentence."""
    try:
        yield
    except OSError as error:
        raise BackendError(
            f"cannot write to {directory} ({error.strerror or error}): "
            f"make room or give another root, then run the same command again, finished episodes are kept"
        ) from error
