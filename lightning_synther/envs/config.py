"""What makes an environment, and what every environment does, whichever library it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_synther.errors import ConfigError

Observation = Literal["pixels", "states"]
DM_CONTROL = "dm_control"
#: Libraries whose environments a task names as ``<library>:<id>``; without a colon it is dm_control's.
LIBRARIES = ("gymnasium", "ogbench")
DM_CONTROL_ACTION_REPEAT = 2  # of V-D4RL and DrQ-v2; elsewhere 1


@dataclass(frozen=True)
class EnvConfig:
    """What makes an environment, in plain types, so that a checkpoint can hold it.

    Args:
        task: a dm_control suite task such as ``cheetah_run``; or ``gymnasium:HalfCheetah-v5``, or
            ``ogbench:antmaze-medium-singletask-v0``.
        observation: ``pixels`` gives the last ``frame_stack`` images of ``image_size`` pixels a side, ``states``
            the flat vector, a goal included where the environment has one.
        image_size: side of an image.
        frame_stack: images in an observation.
        action_repeat: environment steps per action (None: 2 in dm_control, 1 elsewhere).
        time_limit: simulated seconds of an episode, None for the task's own limit; dm_control only.
        env_kwargs: arguments of `gymnasium.make`, such as ``max_episode_steps`` or ``maze_map``; not dm_control.
        reference_scores: returns that count as 0 and as 100 in normalised scores (None: those of dm_control).
    """

    task: str
    observation: Observation = "pixels"
    image_size: int = 84
    frame_stack: int = 3
    action_repeat: int = cast(int, None)  # never None afterwards
    time_limit: float | None = None
    env_kwargs: dict[str, Any] | None = None
    reference_scores: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.observation not in get_args(Observation):
            raise ConfigError(f"observation is {self.observation!r}: give 'pixels' or 'states'")
        if self.action_repeat is None:
            default = DM_CONTROL_ACTION_REPEAT if self.library == DM_CONTROL else 1
            object.__setattr__(self, "action_repeat", default)
        for name in ("image_size", "frame_stack", "action_repeat"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ConfigError(f"time_limit is {self.time_limit}: give a positive number of seconds, or null")
        if self.time_limit is not None and self.library != DM_CONTROL:
            raise ConfigError(
                f"time_limit is {self.time_limit}, but {self.task} has a limit of its own: leave it out, or give "
                "env_kwargs.max_episode_steps"
            )
        if self.env_kwargs and self.library == DM_CONTROL:
            raise ConfigError(
                f"env_kwargs are arguments of gymnasium.make, but {self.task} is a dm_control task: remove them"
            )
        if self.reference_scores is not None and not self.reference_scores[0] < self.reference_scores[1]:
            raise ConfigError(
                f"reference_scores are {list(self.reference_scores)}: give the return that counts as 0, and a "
                "larger one that counts as 100"
            )

    @property
    def library(self) -> str:
        """Where the task comes from: ``dm_control``, or one of `LIBRARIES`; `ConfigError` for another."""
        library, colon, _ = self.task.partition(":")
        if not colon:
            return DM_CONTROL
        if library not in LIBRARIES:
            raise ConfigError(
                f"task is {self.task!r}: give a dm_control task as in cheetah_run, or one of "
                f"{', '.join(f'{name}:<id>' for name in LIBRARIES)}"
            )
        return library

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and for checkpoints that load weights-only; what is unset is left out."""
        values = asdict(self)
        if self.reference_scores is not None:
            values["reference_scores"] = list(self.reference_scores)
        optional = ("env_kwargs", "reference_scores")
        return {key: value for key, value in values.items() if key not in optional or value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EnvConfig:
        """Inverse of `to_dict`; `ConfigError` names a key that no environment has."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown or "task" not in values:
            raise ConfigError(
                f"environment settings {sorted(values)} must hold 'task' and only keys of "
                f"{list(cls.__dataclass_fields__)}: mend {', '.join(unknown) or 'the missing task'}"
            )
        return cls(**values)


def check_episodes_end(config: EnvConfig, max_steps: int | None) -> int:
    """``max_steps``; `ConfigError` where an environment has no such time limit: it cannot be played to its end.

    Also where it may end by itself: whether it does is up to the policy, and one that is good or untrained may be
    played for ever.
    """
    if max_steps is not None:
        return max_steps
    remedy = "give time_limit, in simulated seconds"
    if config.library != DM_CONTROL:
        remedy = "give env_kwargs.max_episode_steps, or register the environment with max_episode_steps"
    raise ConfigError(f"an episode of {config.task} may never end: {remedy}")


class StepResult(NamedTuple):
    """What one action led to; ``discount`` is the environment's own: 1 when time ran out, 0 at a true end."""

    observation: NDArray[Any]
    reward: float
    discount: float
    last: bool


class Environment(Protocol):
    """What the learner needs of an environment; actions are (A,) in [-1, 1]."""

    config: EnvConfig
    action_dim: int

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of what `reset` and `step` return."""
        ...

    @property
    def max_steps(self) -> int | None:
        """Actions until the time limit ends an episode; None where there is no limit."""
        ...

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Begin an episode; with ``seed`` it is that seed's episode, else the next of the current stream."""
        ...

    def step(self, action: ArrayLike) -> StepResult:
        """Apply ``action`` (A,) for ``action_repeat`` environment steps, fewer where the episode ends."""
        ...

    def state(self) -> NDArray[np.float32]:
        """The flat state (S,), whatever the observation is."""
        ...

    def render(self, size: int) -> NDArray[np.uint8]:
        """The scene now, (size, size, 3) uint8."""
        ...

    def physics_state(self) -> NDArray[np.float64]:
        """All that a frame depends on, (P,); dm_control only, `ConfigError` elsewhere."""
        ...

    def close(self) -> None:
        """Free the OpenGL context."""
        ...
