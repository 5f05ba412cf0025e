"""Fill episodes' files in worker processes: by playing a behaviour policy, or from recorded physics states.

Each episode is written where it was rendered, as an NPZ file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.vd4rl import NpzWriter
from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.control import ControlEnv
from lightning_synther.envs.worker import start_workers, wait_for_any
from lightning_synther.errors import BackendError, DataError
from lightning_synther.online.policies import load_policy
from lightning_synther.online.recording import Recording
from lightning_synther.seeding import derive_seed

_STEPS_PER_CALL = 25  # between two signs of life of a worker, about half a second


class Job(NamedTuple):
    """One episode: its number, and the prefix of its file's name, which tells parts of a dataset apart."""

    prefix: str
    number: int


class EpisodeSource(Protocol):
    """What lives in a worker; both methods return (frames rendered, whether the episode is over and written)."""

    def begin(self, job: Job) -> tuple[int, bool]:
        """Render the first frame of an episode."""
        ...

    def advance(self, num_steps: int) -> tuple[int, bool]:
        """Render up to ``num_steps`` more."""
        ...


class _Pages:
    """One episode in the making: a frame and what led to it, again and again; each frame is in memory once."""

    def __init__(self, directory: Path, job: Job, capacity: int) -> None:
        self._directory, self._job, self._capacity = directory, job, capacity
        self._frames: NDArray[np.uint8] | None = None
        self._led_to: list[tuple[NDArray[np.float32], float, float]] = []

    def add(
        self, frame: NDArray[np.uint8], action: NDArray[np.float32], reward: float, discount: float
    ) -> None:
        if self._frames is None:
            self._frames = np.empty((self._capacity, *frame.shape), np.uint8)
        elif len(self._led_to) == len(self._frames):
            self._frames = np.concatenate([self._frames, np.empty_like(self._frames)])
        self._frames[len(self._led_to)] = frame
        self._led_to.append((action, reward, discount))

    def write(self) -> None:
        assert self._frames is not None
        actions, rewards, discounts = zip(*self._led_to, strict=True)
        with writing(self._directory):
            writer = NpzWriter(self._directory, self._job.prefix, first=self._job.number)
            writer.append(self._frames[: len(rewards)], np.stack(actions), rewards, discounts)
        self._frames = None


class PolicyEpisodes:
    """Plays one episode after another.

    Episode i depends on ``seed`` and i alone: its start, and the noise of its actions. The policy sees
    states, the file gets images. ``policies``: prefix of a part's files to a name or a file, as for
    `load_policy`.
    """

    def __init__(self, config: EnvConfig, policies: Mapping[str, str], seed: int, directory: Path) -> None:
        self._env = ControlEnv(config)
        self._policies = {prefix: load_policy(name, config.task) for prefix, name in policies.items()}
        self._seed, self._directory = seed, directory

    def begin(self, job: Job) -> tuple[int, bool]:
        """Reset to the episode; its row 0 has no action and reward, its discount is 1 by V-D4RL's convention."""
        self._policy = self._policies[job.prefix]
        self._noise = np.random.default_rng(derive_seed(self._seed, "collect action", job.number))
        self._pages = _Pages(self._directory, job, 1 + (self._env.max_steps or 500))
        frame = self._env.reset(derive_seed(self._seed, "collect episode", job.number))
        self._pages.add(frame, np.zeros(self._env.action_dim, np.float32), 0.0, 1.0)
        return 1, False

    def advance(self, num_steps: int) -> tuple[int, bool]:
        """Take up to ``num_steps`` actions."""
        for step in range(1, num_steps + 1):
            action = self._policy.act(self._env.state()[None], self._noise)[0]
            frame, reward, discount, last = self._env.step(action)
            self._pages.add(frame, action, reward, discount)
            if last:
                self._pages.write()
                return step, True
        return num_steps, False

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


class RecordedEpisodes:
    """Renders the episodes of a `Recording`, whose physics states a training left."""

    def __init__(self, config: EnvConfig, recording: str, directory: Path) -> None:
        self._env = ControlEnv(config)
        self._recording = Recording(recording)
        self._directory = directory

    def begin(self, job: Job) -> tuple[int, bool]:
        """Set the scene of the episode: a reset may place targets and the like, which no state tells of.

        Raises `DataError` where this machine's reset is not the recorded one.
        """
        self._rows = self._recording.episode(job.number)
        self._pages = _Pages(self._directory, job, len(self._rows))
        self._next = 0
        self._env.reset(int(self._rows["seed"][0]))
        if not np.allclose(self._env.physics_state(), self._rows["state"][0], rtol=1e-6, atol=1e-6):
            raise DataError(
                f"episode {job.number} of {self._recording.path} does not start where the environment here does: "
                f"it was recorded with {self._recording.metadata.versions}, use those versions"
            )
        return self.advance(1)

    def advance(self, num_steps: int) -> tuple[int, bool]:
        """Render up to ``num_steps`` states."""
        rows = self._rows[self._next : self._next + num_steps]
        self._next += len(rows)
        for row in rows:
            frame = self._env.show(row["state"])
            self._pages.add(frame, row["action"], float(row["reward"]), float(row["discount"]))
        finished = self._next == len(self._rows)
        if finished:
            self._pages.write()
        return len(rows), finished

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


def record_episodes(
    source: tuple[type[EpisodeSource], tuple[Any, ...]], jobs: Sequence[Job], num_workers: int
) -> Iterator[tuple[int, bool]]:
    """Write the episodes ``jobs``; yields (frames rendered, whether one was finished).

    ``source`` is what each worker hosts: a class and its arguments. The workers go on while the caller looks
    at what was yielded; they end with the iterator.
    """
    waiting = deque(jobs)
    factory, args = source
    workers = start_workers(min(num_workers, len(waiting)), factory, *args) if waiting else []
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
