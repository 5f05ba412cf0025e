"""A Gymnasium environment, OGBench's included, as a learner sees it: the interface of `ControlEnv`."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from lightning_synther.envs.config import EnvConfig, StepResult
from lightning_synther.envs.libraries import make_gymnasium
from lightning_synther.envs.spaces import flat_size, flatten, is_image
from lightning_synther.envs.tasks import rendering_error
from lightning_synther.errors import ConfigError


class GymnasiumEnv:
    """An environment that `gymnasium.make` builds, behind `reset` and `step`.

    Observations are the environment's own flattened to (S,) float32 (`flatten`; of OGBench's goal-conditioned
    environments with the goal appended), or for ``pixels`` (3 * frame_stack, H, W) uint8, its own images or
    rendered ones, oldest frame first and the first frame repeated at reset. Actions are (A,) in [-1, 1] and
    rescaled to the environment's bounds. ``discount`` is 0 where it terminates and 1 where it is truncated. An
    episode depends on its seed alone, not on the ones before it.
    """

    def __init__(self, config: EnvConfig, seed: int = 0) -> None:
        self.config = config
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=config.frame_stack)
        self._env = make_gymnasium(config)
        self._random = NumpyRandom(seed) if config.library == "ogbench" else None
        self._space = self._env.observation_space
        self._has_images = is_image(self._space)
        self._goal_dim = 0
        if config.observation == "states":
            self._state_dim = flat_size(self._space, config.task)
            self._goal_dim = self._measure_goal(seed)
        self._action_scale, self._action_offset = _bounds(self._env.action_space, config.task)
        self.action_dim: int = len(self._action_scale)
        self._seed: int | None = seed

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of what `reset` and `step` return."""
        if self.config.observation == "pixels":
            return (3 * self.config.frame_stack, self.config.image_size, self.config.image_size)
        return (self._state_dim + self._goal_dim,)

    @property
    def max_steps(self) -> int | None:
        """Actions until the time limit ends an episode; None where the environment sets no limit."""
        limit = self._env.spec.max_episode_steps
        return None if limit is None else -(-limit // self.config.action_repeat)

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Begin an episode; with ``seed`` it is that seed's episode, else the next of the current stream."""
        seed = self._seed if seed is None else seed
        self._seed = None
        self._begin(seed)
        self._frames.clear()
        return self._observe()

    def step(self, action: ArrayLike) -> StepResult:
        """Apply ``action`` (A,) for ``action_repeat`` environment steps, fewer where the episode ends.

        The reward is the sum of the steps' rewards.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.action_dim,):
            raise ConfigError(
                f"{self.config.task} takes actions of shape ({self.action_dim},), got {action.shape}: "
                f"use a policy of this task"
            )
        own = (action * self._action_scale + self._action_offset).astype(self._env.action_space.dtype)
        reward, terminated, truncated = 0.0, False, False
        for _ in range(self.config.action_repeat):
            with self._own_random():
                self._observation, gain, terminated, truncated, _ = self._env.step(own)
            reward += float(gain)
            if terminated or truncated:
                break
        return StepResult(self._observe(), reward, 0.0 if terminated else 1.0, bool(terminated or truncated))

    def state(self) -> NDArray[np.float32]:
        """The flat state (S,), the goal included; raises `ConfigError` where the environment observes images."""
        flat_size(self._space, self.config.task)
        return np.concatenate([flatten(self._space, self._observation), self._goal])

    def render(self, size: int) -> NDArray[np.uint8]:
        """The scene now, (size, size, 3) uint8, scaled from what the environment renders."""
        try:
            image = self._env.render()
        except Exception as error:
            raise rendering_error(error) from error
        if image is None:
            raise ConfigError(f"{self.config.task} cannot be rendered as an image: set observation to states")
        return _resized(image, size)

    def physics_state(self) -> NDArray[np.float64]:
        """Not here: raises `ConfigError`."""
        raise ConfigError(
            f"physics states are recorded and shown in dm_control only, not in {self.config.task}: leave "
            "data.record out"
        )

    def close(self) -> None:
        """Free the OpenGL context."""
        self._env.close()

    def _begin(self, seed: int | None) -> None:
        reduced = None if seed is None else seed % 2**32
        if reduced is not None:
            self._env.action_space.seed(reduced)  # OGBench takes random actions in its resets
            if self._random is not None:
                self._random = NumpyRandom(reduced)
        with self._own_random():
            self._observation, info = self._env.reset(seed=reduced)
        has_goal = "goal" in info and not self._has_images and self.config.observation == "states"
        self._goal = np.ravel(info["goal"] if has_goal else ()).astype(np.float32)

    def _measure_goal(self, seed: int) -> int:
        """Length of the goal that an episode comes with: OGBench gives it at reset only."""
        if self.config.library != "ogbench" or "singletask" in self.config.task:
            return 0
        self._begin(seed)
        return len(self._goal)

    def _observe(self) -> NDArray[Any]:
        if self.config.observation == "states":
            return np.concatenate([flatten(self._space, self._observation), self._goal])
        size = self.config.image_size
        image = _resized(self._observation, size) if self._has_images else self.render(size)
        frame = image.transpose(2, 0, 1)
        self._frames.extend([frame] * (1 if self._frames else self.config.frame_stack))
        return np.concatenate(self._frames)

    def _own_random(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._random is None else self._random.in_use()


class NumpyRandom:
    """numpy's global generator for those who draw from it: OGBench's tasks, noise and teleports."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed % 2**32).get_state()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block the global generator is this one; afterwards it is as it was."""
        before = np.random.get_state()  # noqa: NPY002
        np.random.set_state(self._state)  # noqa: NPY002
        try:
            yield
        finally:
            self._state = np.random.get_state()  # noqa: NPY002
            np.random.set_state(before)  # noqa: NPY002


def _bounds(space: Any, task: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and offset (A,) from [-1, 1] to the action space."""
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    if low is None or high is None or len(space.shape) != 1 or not np.isfinite([low, high]).all():
        raise ConfigError(f"{task} takes actions of {space}: only bounded vectors of numbers are possible")
    return (high - low) / 2.0, (high + low) / 2.0


def _resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))
