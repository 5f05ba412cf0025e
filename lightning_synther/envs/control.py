"""One dm_control environment as a learner sees it: repeated, rescaled actions; stacked frames or a state."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_synther.envs.config import EnvConfig, StepResult
from lightning_synther.envs.tasks import camera_id, load_suite, parse_task, rendering_error
from lightning_synther.errors import ConfigError


class ControlEnv:
    """A dm_control suite task behind `reset` and `step`.

    Observations are (3 * frame_stack, H, W) uint8, oldest frame first and the first frame repeated at reset
    (DrQ-v2, Yarats et al. 2021), or (S,) float32: dm_control's observations concatenated in their own order.
    Actions are (A,) in [-1, 1] and rescaled to the task's bounds. An episode depends on its seed alone, not
    on the ones before it.
    """

    def __init__(self, config: EnvConfig, seed: int = 0) -> None:
        self.config = config
        self._domain, self._task = parse_task(config.task)
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=config.frame_stack)
        self._env = self._load(seed)
        self._check_size(config.image_size)
        spec = self._env.action_spec()
        self._action_scale = (spec.maximum - spec.minimum) / 2
        self._action_offset = (spec.maximum + spec.minimum) / 2
        self.action_dim: int = spec.shape[0]

    def _load(self, seed: int) -> Any:
        task_kwargs: dict[str, Any] = {"random": seed % 2**32}
        if self.config.time_limit is not None:
            task_kwargs["time_limit"] = self.config.time_limit
        self._cameras: dict[int, Any] = {}
        return load_suite().load(self._domain, self._task, task_kwargs=task_kwargs)

    def _check_size(self, size: int) -> None:
        """Raise `ConfigError` for an image that is larger than the buffer which the task's model is drawn in."""
        drawn = self._env.physics.model.vis.global_
        if size > (limit := min(drawn.offwidth, drawn.offheight)):
            raise ConfigError(
                f"image_size is {size}, but {self.config.task} is rendered at up to {limit} pixels: lower it"
            )

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of what `reset` and `step` return."""
        if self.config.observation == "pixels":
            return (3 * self.config.frame_stack, self.config.image_size, self.config.image_size)
        return (sum(math.prod(spec.shape) for spec in self._env.observation_spec().values()),)

    @property
    def max_steps(self) -> int | None:
        """Actions until the time limit ends an episode; None where the task sets no limit."""
        limit = getattr(self._env, "_step_limit", math.inf)  # dm_control keeps it to itself
        return None if math.isinf(limit) else math.ceil(limit / self.config.action_repeat)

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Begin an episode; with ``seed`` it is that seed's episode, else the next of the current stream."""
        if seed is not None:
            if self._domain == "lqr":  # the only domain that draws its model when it is built
                self._env = self._load(seed)
            self._env.task.random.seed(seed % 2**32)
        self._observation = self._env.reset().observation
        self._frames.clear()
        return self._observe()

    def step(self, action: ArrayLike) -> StepResult:
        """Apply ``action`` (A,) for ``action_repeat`` control steps, fewer where the episode ends.

        The reward is the sum of r_k times the discounts before k, the discount is the product of all.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.action_dim,):
            raise ConfigError(
                f"{self.config.task} takes actions of shape ({self.action_dim},), got {action.shape}: "
                f"use a policy of this task"
            )
        reward, discount = 0.0, 1.0
        for _ in range(self.config.action_repeat):
            time_step = self._env.step(action * self._action_scale + self._action_offset)
            reward += time_step.reward * discount
            discount *= time_step.discount
            if time_step.last():
                break
        self._observation = time_step.observation
        return StepResult(self._observe(), reward, discount, time_step.last())

    def state(self) -> NDArray[np.float32]:
        """The flat proprioceptive state (S,), whatever the observation is."""
        return np.concatenate([np.ravel(value) for value in self._observation.values()]).astype(np.float32)

    def render(self, size: int) -> NDArray[np.uint8]:
        """The scene now, (size, size, 3) uint8, at dm_control's default visual quality."""
        from dm_control.mujoco import Camera

        if size not in self._cameras:
            self._check_size(size)
        try:
            if size not in self._cameras:  # physics.render builds one for every image: 5 % of the time
                self._cameras[size] = Camera(self._env.physics, size, size, camera_id(self._domain))
            return self._cameras[size].render().copy()  # a camera has one buffer
        except Exception as error:
            raise rendering_error(error) from error

    def physics_state(self) -> NDArray[np.float64]:
        """Positions, velocities and activations (P,): in an episode, all that a frame depends on."""
        return np.array(self._env.physics.get_state(), np.float64)

    def show(self, physics_state: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The frame (3, H, W) of ``physics_state`` (P,), in the scene of the episode that `reset` began.

        Bit by bit what a live episode shows there. It leaves the episode where the state is.
        """
        physics = self._env.physics
        physics.set_state(physics_state)
        physics.forward()
        return self.render(self.config.image_size).transpose(2, 0, 1)

    def close(self) -> None:
        """Free the OpenGL context."""
        self._env.close()

    def _observe(self) -> NDArray[Any]:
        if self.config.observation == "states":
            return self.state()
        frame = self.render(self.config.image_size).transpose(2, 0, 1)
        self._frames.extend([frame] * (1 if self._frames else self.config.frame_stack))
        return np.concatenate(self._frames)
