"""Online training from pixels: the data of a DrQ-v2 run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.envs.config import StepResult
from lightning_synther.errors import ConfigError
from lightning_synther.online.environments import Environments, Floats
from lightning_synther.online.interaction import OnlineData
from lightning_synther.online.pixel_replay import OnlinePixelReplay
from lightning_synther.transition import Transition

NEWEST = slice(-3, None)  # channels of the newest frame of a stack


class PixelEnvironments(Environments):
    """One environment of pixels, and the frames that it shows.

    A resumed run plays the unfinished episode again with rendering, which takes seconds.

    Args:
        n_step: rewards folded into a transition.
        pad: largest shift of a frame in pixels.
        environments: arguments of `Environments`.
    """

    replay: OnlinePixelReplay  # type: ignore[assignment]

    def __init__(self, *environments: Any, n_step: int, pad: int) -> None:
        self.n_step, self.pad = n_step, pad
        super().__init__(*environments)

    def make_replay(self) -> None:
        """The files of frames; an episode has at least one step, hence at most as many resets as steps."""
        config = self._envs[0].config
        self.replay = OnlinePixelReplay(
            self.capacity,
            self.action_dim,
            config.image_size,
            config.frame_stack,
            self.n_step,
            self.gamma,
            self.pad,
            None if self.replay_path is None else self.replay_path.with_suffix(""),
            num_rows=2 * self.max_steps + 1,
        )

    def store(self, actions: Floats, results: list[StepResult]) -> None:
        """Bring the newest frame, and what led to it, into the replay memory."""
        for action, result in zip(actions, results, strict=True):
            self.replay.add(result.observation[NEWEST], action, result.reward, result.discount)

    def store_reset(self, observation: NDArray[Any]) -> None:
        """An episode's first frame has a row of its own."""
        self.replay.add_reset(observation[NEWEST])


class OnlinePixelData(OnlineData):
    """Steps of one environment of pixels in alternation with randomly shifted batches, as online DrQ-v2 has them.

    With ``update_to_data_ratio: 0.5`` there is one update in two agent steps, as published (Yarats et al. 2021).

    Args:
        n_step: rewards folded into a transition.
        pad: largest random shift in pixels.
        interaction: arguments of `OnlineData`, with ``env.observation: pixels`` and ``num_envs: 1``.
    """

    OBSERVATION = "pixels"

    def __init__(self, *, n_step: int = 3, pad: int = 4, **interaction: Any) -> None:
        super().__init__(**interaction)
        if n_step < 1 or pad < 0:
            raise ConfigError(f"data.n_step is {n_step} and data.pad {pad}: give at least 1, and at least 0")
        if self.num_envs != 1:
            raise ConfigError(
                f"data.num_envs is {self.num_envs}, but frames are kept as the episodes of one environment: set it to 1"
            )
        if self.record is not None:
            raise ConfigError("data.record is for runs on states: leave it out")
        self.n_step, self.pad = n_step, pad

    def agent_arguments(self) -> dict[str, Any]:
        """The environment, and the size of its actions."""
        return {
            "observation": "pixels",
            "action_dim": self.preview_env().action_dim,
            "env": self.env.to_dict(),
        }

    def make_environments(self, *arguments: Any) -> PixelEnvironments:
        """One environment, with the memory of its frames."""
        return PixelEnvironments(*arguments, n_step=self.n_step, pad=self.pad)

    def draw(self, updates: range) -> list[Transition]:
        """Batches of stacked frames (B, 3 * frame_stack, H, W) uint8."""
        return [self.real_batch(self.generator(update)) for update in updates]

    def real_batch(self, generator: np.random.Generator) -> Transition:
        """One batch of the replay memory."""
        replay = self.environments.replay
        assert isinstance(replay, OnlinePixelReplay)
        return replay.sample(self.batch_size, generator)
