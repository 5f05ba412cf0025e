"""One step of dm_control's simulator from a state that is given as an observation.

Possible where the observation determines the physics state up to what neither motion nor reward depends on:

=============  ======================================================================================
acrobot        angles of both arms from their orientations, ``velocity`` is qvel
ball_in_cup    ``position`` is qpos, ``velocity`` is qvel
cartpole       cart from ``position``, the poles' angles from their orientations, ``velocity`` is qvel
cheetah        ``position`` is qpos without the root's x, which nothing depends on, ``velocity`` is qvel
hopper         as cheetah; ``touch`` follows from the rest
pendulum       angle from ``orientation``, ``velocity`` is qvel
point_mass     ``position`` is qpos, ``velocity`` is qvel (``easy``; ``hard`` hides how its motors are wired)
reacher        ``position`` is qpos, ``velocity`` is qvel, the target from ``to_target``
walker         joints from the bodies' absolute ``orientations``, height of the root from ``height``
=============  ======================================================================================

The others hide part of the state (finger: the spinner's angle; fish, swimmer, humanoid, quadruped, dog: position or
orientation of the root; manipulator and stacker: the objects' whole state).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.tasks import load_suite, parse_task
from lightning_synther.errors import ConfigError, DataError

Parts = Mapping[str, NDArray[np.float64]]
Positions = Callable[[Parts, Any], Any]


class SimulatedStep(NamedTuple):
    """What the simulator makes of a state and an action; ``state`` is how it observes the state it was given."""

    state: NDArray[np.float64]
    next_state: NDArray[np.float64]
    reward: float


class Simulator:
    """A task's simulator, which can start from any observation.

    Raises `ConfigError` for a task whose observation does not determine its state (see the module).
    """

    def __init__(self, config: EnvConfig) -> None:
        domain, task = parse_task(config.task)
        if domain not in POSITIONS or (domain, task) == ("point_mass", "hard"):
            raise ConfigError(
                f"the simulator cannot be set to an observation of {config.task}, which hides part of its state: "
                f"leave task out, or compare data of {', '.join(sorted(POSITIONS))}"
            )
        self.config, self._positions = config, POSITIONS[domain]
        self._env = load_suite().load(domain, task)
        self._shapes = {name: spec.shape for name, spec in self._env.observation_spec().items()}
        self.observation_dim = sum(math.prod(shape) for shape in self._shapes.values())
        spec = self._env.action_spec()
        self.action_dim: int = spec.shape[0]
        self._scale, self._offset = (spec.maximum - spec.minimum) / 2, (spec.maximum + spec.minimum) / 2
        self._substeps = round(self._env.control_timestep() / self._env.physics.timestep())
        self._env.reset()

    def step(self, state: NDArray[np.floating], action: NDArray[np.floating]) -> SimulatedStep | None:
        """Apply ``action`` (A,) in [-1, 1] to ``state`` (S,) for ``action_repeat`` control steps.

        None where the simulation diverges. Raises `DataError` for vectors of other sizes.
        """
        from dm_control.rl.control import PhysicsError

        if state.shape != (self.observation_dim,) or action.shape != (self.action_dim,):
            raise DataError(
                f"{self.config.task} has states ({self.observation_dim},) and actions ({self.action_dim},), got "
                f"{state.shape} and {action.shape}: give the task that the data are from"
            )
        try:
            self._restore(np.asarray(state, np.float64))
            seen, reward = self._observe(), self._repeat(action * self._scale + self._offset)
        except PhysicsError:
            return None
        return SimulatedStep(seen, self._observe(), reward)

    def _restore(self, state: NDArray[np.float64]) -> None:
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        values = np.split(state, np.cumsum(sizes)[:-1])
        parts = dict(zip(self._shapes, values, strict=True))
        physics = self._env.physics
        with physics.reset_context():
            physics.data.qpos[:] = self._positions(parts, physics)
            physics.data.qvel[:] = parts["velocity"]
            if self.config.task.startswith("reacher"):
                physics.forward()  # where the finger is
                finger = physics.named.data.geom_xpos["finger", :2]
                physics.named.model.geom_pos["target", :2] = finger + parts["to_target"]

    def _repeat(self, control: NDArray[np.float64]) -> float:
        task, physics = self._env.task, self._env.physics
        total = 0.0
        for _ in range(self.config.action_repeat):
            task.before_step(control, physics)
            physics.step(self._substeps)
            task.after_step(physics)
            total += task.get_reward(physics)
            if task.get_termination(physics) is not None:
                break
        return float(total)

    def _observe(self) -> NDArray[np.float64]:
        observation = self._env.task.get_observation(self._env.physics)
        return np.concatenate([np.ravel(value) for value in observation.values()]).astype(np.float64)


def _relative(angles: NDArray[np.float64], parents: list[int]) -> NDArray[np.float64]:
    """Angles of joints from absolute angles of bodies; a parent of -1 is the world. In (-pi, pi]."""
    before = np.array([angles[parent] if parent >= 0 else 0.0 for parent in parents])
    return np.arctan2(np.sin(angles - before), np.cos(angles - before))


def _chain(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each body hangs on the one before."""
    return _relative(angles, list(range(-1, len(angles) - 1)))


def _acrobot(parts: Parts, physics: Any) -> Any:
    horizontal, vertical = np.split(parts["orientations"], 2)
    return _chain(np.arctan2(horizontal, vertical))


def _cartpole(parts: Parts, physics: Any) -> Any:
    vertical, horizontal = parts["position"][1:].reshape(-1, 2).T
    return np.concatenate([parts["position"][:1], _chain(np.arctan2(horizontal, vertical))])


def _pendulum(parts: Parts, physics: Any) -> Any:
    vertical, horizontal = parts["orientation"]
    return np.arctan2(horizontal, vertical)


def _position(parts: Parts, physics: Any) -> Any:
    return parts["position"]


def _without_root(parts: Parts, physics: Any) -> Any:
    return np.concatenate([[0.0], parts["position"]])


def _walker(parts: Parts, physics: Any) -> Any:
    # Bodies: torso, right thigh, leg, foot, left thigh, leg, foot. The joints' axis is -y, the root's +y.
    cosine, sine = parts["orientations"].reshape(-1, 2).T
    joints = -_relative(np.arctan2(sine, cosine), [-1, 0, 1, 2, 0, 4, 5])
    height = parts["height"] - physics.named.model.body_pos["torso", "z"]
    return np.concatenate([height, [0.0, -joints[0]], joints[1:]])


#: qpos of a domain from the parts of its observation.
POSITIONS: dict[str, Positions] = {
    "acrobot": _acrobot,
    "ball_in_cup": _position,
    "cartpole": _cartpole,
    "cheetah": _without_root,
    "hopper": _without_root,
    "pendulum": _pendulum,
    "point_mass": _position,
    "reacher": _position,
    "walker": _walker,
}
