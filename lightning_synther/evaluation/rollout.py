"""A policy's episodes, run side by side: one batched policy call a step, every core rendering."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lightning_synther.envs.config import EnvConfig, check_episodes_end
from lightning_synther.envs.pool import EnvPool

Policy = Callable[[NDArray[Any]], NDArray[Any]]
"""Observations (n, ...) of n environments to their actions (n, A) in [-1, 1]."""

MIN_VIDEO_SIZE = 84


@dataclass(frozen=True)
class EpisodeResult:
    """One finished episode: undiscounted return, number of actions, images (T, H, W, 3) if recorded."""

    seed: int
    episode_return: float
    length: int
    frames: NDArray[np.uint8] | None = None


@dataclass
class _Running:
    """An episode under way in one environment."""

    position: int
    seed: int
    episode_return: float = 0.0
    length: int = 0
    frames: list[NDArray[np.uint8]] = field(default_factory=list)

    def result(self) -> EpisodeResult:
        frames = np.stack(self.frames) if self.frames else None
        return EpisodeResult(self.seed, self.episode_return, self.length, frames)


def rollout(
    policy: Policy,
    config: EnvConfig,
    seeds: Sequence[int],
    num_workers: int = 2,
    record: int = 0,
    num_envs: int = 16,
    progress: bool | None = None,
) -> list[EpisodeResult]:
    """Run one episode for each of ``seeds``; results in their order.

    At most ``num_envs`` episodes run at a time; a finished one makes room for the next, so the last ones run
    in smaller batches. Processes only render (``num_workers``, 0 for none): they never change a result. The
    first ``record`` episodes keep their images, at least 84 pixels a side. ``progress`` shows a bar over all
    steps; None shows it on a terminal. Raises `ConfigError` where episodes may never end.
    """
    if not seeds:
        return []
    with EnvPool(config, min(num_envs, len(seeds)), num_workers) as pool:
        max_steps = check_episodes_end(config, pool.max_steps)
        with tqdm(
            total=max_steps * len(seeds),
            desc=config.task,
            unit="step",
            leave=False,
            disable=None if progress is None else not progress,
        ) as bar:
            return _run(policy, pool, seeds, record, bar.update)


def _run(
    policy: Policy, pool: EnvPool, seeds: Sequence[int], record: int, advance: Callable[[int], Any]
) -> list[EpisodeResult]:
    waiting = deque(_Running(position, seed) for position, seed in enumerate(seeds))
    running: dict[int, _Running] = {}  # environment -> its episode
    current: dict[int, NDArray[Any]] = {}  # environment -> its observation
    results: dict[int, EpisodeResult] = {}
    while len(results) < len(seeds):
        idle = [env for env in range(pool.num_envs) if env not in running][: len(waiting)]
        if idle:
            running |= {env: waiting.popleft() for env in idle}
            current |= dict(zip(idle, pool.reset([running[env].seed for env in idle], idle), strict=True))
            _film(pool, running, current, idle, record)
        active = sorted(running)
        step = pool.step(policy(np.stack([current[env] for env in active])), active)
        current = dict(zip(active, step.observation, strict=True))
        for env, reward in zip(active, step.reward, strict=True):
            running[env].episode_return += float(reward)
            running[env].length += 1
        _film(pool, running, current, active, record)
        advance(len(active))
        for env, last in zip(active, step.last, strict=True):
            if last:
                episode = running.pop(env)
                results[episode.position] = episode.result()
    return [results[position] for position in range(len(seeds))]


def _film(
    pool: EnvPool,
    running: dict[int, _Running],
    current: dict[int, NDArray[Any]],
    envs: Sequence[int],
    record: int,
) -> None:
    """Append the present image of the recorded episodes among ``envs``; rendered once only."""
    filmed = [env for env in envs if running[env].position < record]
    if not filmed:
        return
    if pool.config.observation == "pixels" and pool.config.image_size >= MIN_VIDEO_SIZE:
        images = [current[env][-3:].transpose(1, 2, 0) for env in filmed]
    else:
        images = list(pool.render(MIN_VIDEO_SIZE, filmed))
    for env, image in zip(filmed, images, strict=True):
        running[env].frames.append(image)
