"""The data of an online run: a dataloader that steps environments with the agent's policy between batches."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_synther.bounds import check_shares
from lightning_synther.data.updates import EpisodesMixin, UpdateData, Updates
from lightning_synther.envs.config import EnvConfig, Environment, check_episodes_end
from lightning_synther.envs.factory import make_env
from lightning_synther.errors import ConfigError
from lightning_synther.online.environments import Environments, Floats
from lightning_synther.online.time_split import TimeSplit
from lightning_synther.transition import Transition


class Explorer(Protocol):
    """An agent that can act while it learns."""

    device: torch.device

    def explore(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions (N, A) for observations (N, O) and standard normal noise (N, A)."""
        ...


class OnlineData(EpisodesMixin, UpdateData[Transition]):
    """Environment steps in alternation with batches from the replay memory that they fill.

    An agent step is ``env.action_repeat`` control steps in one environment. Every ``updates_per_step``
    gradient updates are preceded by ``updates_per_step / update_to_data_ratio`` agent steps.
    ``trainer.max_steps`` counts updates, so a run takes ``start_steps + max_steps / update_to_data_ratio``
    agent steps. With several processes each of them steps environments of its own, as many.

    The replay memory is a file, ``replay/rank_<n>.rows`` in the folder where the Trainer's checkpoint callback writes,
    so that a checkpoint holds a number and not gigabytes; without such a folder it is part of the checkpoint.

    Args:
        env: the environment, with ``observation: states``; in Python a dict of its fields will do.
        start_steps: agent steps with uniform actions before the first update.
        update_to_data_ratio: gradient updates for each agent step.
        num_envs: environments stepped together.
        replay_capacity: transitions kept, at least a batch; the oldest are no longer drawn.
        gamma: discount of an agent step.
        batch_size: transitions in an update.
        updates_per_step: updates in one pass of Lightning's loop.
        seed: seed of episodes, exploration and batches.
        eval_episodes: validation and test episodes.
        eval_seed: what their seeds derive from.
        record: folder for a recording of everything that enters the replay memory, as physics states (see
            `online.recording`): ``collect --policy=medium_replay --replay_path=`` renders it.
    """

    OBSERVATION: ClassVar[str] = "states"

    def __init__(
        self,
        env: EnvConfig,
        start_steps: int = 2_000,
        update_to_data_ratio: float = 1.0,
        num_envs: int = 1,
        replay_capacity: int = 1_000_000,
        gamma: float = 0.99,
        batch_size: int = 256,
        updates_per_step: int = 8,
        seed: int = 0,
        eval_episodes: int = 10,
        eval_seed: int = 0,
        record: str | None = None,
    ) -> None:
        super().__init__(batch_size, updates_per_step, seed)
        self.record = record
        self.env = EnvConfig.from_dict(env) if isinstance(env, dict) else env
        self.start_steps, self.num_envs = start_steps, num_envs
        self.replay_capacity, self.gamma = replay_capacity, gamma
        self.eval_episodes, self.eval_seed = eval_episodes, eval_seed
        self.time_split = TimeSplit()
        self.update_to_data_ratio = update_to_data_ratio
        if self.env.observation != self.OBSERVATION:
            raise ConfigError(
                f"data.env.observation is {self.env.observation!r}: set it to {self.OBSERVATION!r} for "
                f"{type(self).__name__}"
            )
        check_shares("data", gamma=gamma)
        if not 1 <= num_envs <= start_steps:
            raise ConfigError(f"data.num_envs is {num_envs}: it must be in 1 … start_steps ({start_steps})")
        # Fewer than start_steps is a choice: the oldest random steps are no longer drawn.
        if replay_capacity < max(batch_size, num_envs):
            raise ConfigError(
                f"data.replay_capacity is {replay_capacity}: give at least data.batch_size ({batch_size}) and "
                f"data.num_envs ({num_envs})"
            )
        steps = updates_per_step / update_to_data_ratio if update_to_data_ratio > 0 else 0
        if steps < 1 or steps % num_envs:
            raise ConfigError(
                f"data.updates_per_step={updates_per_step} at data.update_to_data_ratio="
                f"{update_to_data_ratio} is not a whole number of steps of data.num_envs={num_envs} "
                "environments: change one of them"
            )
        self.steps_per_step = int(steps)

    def agent_arguments(self) -> dict[str, Any]:
        """The environment, and the sizes of its states and actions."""
        env = self.preview_env()
        return {
            "observation": "states",
            "observation_dim": env.observation_shape[0],
            "action_dim": env.action_dim,
            "env": self.env.to_dict(),
        }

    def preview_env(self) -> Environment:
        """The environment, to look at; `ConfigError` where its episodes may never end, in evaluation too."""
        env = make_env(self.env)
        check_episodes_end(self.env, env.max_steps)
        return env

    def check_agent(self, cls: type[pl.LightningModule]) -> None:
        """Raise `ConfigError` for a class of agents without `Explorer`'s method."""
        if not hasattr(cls, "explore"):
            raise ConfigError(
                f"{cls.__name__} cannot act while it learns, which {type(self).__name__} needs: use SAC, REDQ or "
                "DrQV2, or give it a method `explore`"
            )

    def setup(self, stage: str) -> None:
        """Build this process's environments."""
        super().setup(stage)
        if stage != "fit":
            return
        trainer = self._trainer
        self.check_agent(type(trainer.lightning_module))
        if trainer.max_steps < 1:
            raise ConfigError(
                "online training never ends by itself: set trainer.max_steps, the number of updates"
            )
        if self.record is not None and trainer.world_size > 1:
            raise ConfigError(
                "data.record is written by one process: set trainer.devices to 1, or leave it out"
            )
        whole_rounds = -(-self.start_steps // self.num_envs) * self.num_envs
        self.environments = self.make_environments(
            self.env,
            self.num_envs,
            self.replay_capacity,
            self.gamma,
            self.seed,
            trainer.global_rank,
            self._replay_path(),
            whole_rounds + trainer.max_steps // self.updates_per_step * self.steps_per_step,
        )

    def make_environments(self, *arguments: Any) -> Environments:
        """Environments of this process, with their replay memory."""
        return Environments(*arguments)

    def train_dataloader(self) -> DataLoader[list[Transition]]:
        """Lists of batches, as many as ``trainer.max_steps`` takes."""
        if self.record is not None and self.environments.recorder is None:  # a checkpoint was loaded by now
            self.environments.record(self.record)
        # Lightning's warning about lengths and worker processes: there are none here.
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        return DataLoader(_Interaction(self, self._trainer.max_steps), batch_size=None)

    def teardown(self, stage: str) -> None:
        """Finish the recording; an interrupted fit does not come here, and its recording stays partial."""
        if stage == "fit" and self.environments.recorder is not None:
            self.environments.recorder.finish()

    def batches(self, updates: range) -> list[Transition]:
        """Take the agent steps that belong to these updates, then sample their batches."""
        self.time_split.since_last("updates")
        with self.time_split.measure("environment"):
            if self.environments.num_steps == 0:
                self._log_returns(self.environments.collect(self.start_steps, explore=None))
            self._log_returns(self.environments.collect(self.steps_per_step, self._explore))
        self.on_steps_taken()
        with self.time_split.measure("batches"):
            return self.draw(updates)

    def on_steps_taken(self) -> None:
        """What else there is to do between environment steps and updates."""

    def draw(self, updates: range) -> list[Transition]:
        """The batches of some updates, from the replay memory as it is: views of one block of rows."""
        replay = self.environments.replay
        rows = torch.empty(len(updates), self.batch_size, sum(replay.sizes))
        for update, block in zip(updates, rows, strict=True):
            replay.draw(self.batch_size, self.generator(update), out=block)
        return [replay.unflatten(block) for block in rows]

    def results(self) -> dict[str, Any]:
        """Agent steps, and how many seconds went into environment, batches and updates (a resumed run counts on)."""
        self.time_split.since_last("updates")
        seconds = {name: round(value, 2) for name, value in self.time_split.seconds.items()}
        return {"agent_steps": self.environments.num_steps, "seconds": seconds}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs of the environments and the replay memory."""
        return {**self.environments.state_dict(), "seconds": self.time_split.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; `ConfigError` with several processes."""
        if self._trainer.state.fn != "fit":  # evaluating a checkpoint needs none of it
            return
        if self._trainer.world_size > 1:
            raise ConfigError(
                "an online run on several processes cannot be resumed, because its checkpoint holds the "
                "environments of the first process only: start anew in another run directory"
            )
        self.environments.load_state_dict(state_dict)
        self.time_split.load_state_dict(state_dict["seconds"])

    @property
    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None, (
            "OnlineData steps environments for a Trainer: use it with Trainer.fit"
        )
        return self.trainer

    def _replay_path(self) -> Path | None:
        checkpoints = self._trainer.checkpoint_callback
        if not isinstance(checkpoints, ModelCheckpoint) or checkpoints.dirpath is None:
            return None
        return Path(checkpoints.dirpath) / "replay" / f"rank_{self._trainer.global_rank}.rows"

    def _explore(self, states: Floats, noise: Floats) -> Floats:
        agent = cast(Explorer, self._trainer.lightning_module)
        observation, draws = (torch.from_numpy(array).to(agent.device) for array in (states, noise))
        return agent.explore(observation, draws).cpu().numpy()

    def _log_returns(self, returns: list[float]) -> None:
        for value in returns:
            metrics = {"train/episode_return": value, "train/agent_steps": float(self.environments.num_steps)}
            for logger in self._trainer.loggers:
                logger.log_metrics(metrics, step=self._trainer.global_step)


class _Interaction(Updates[Transition]):
    """Interaction and batches until ``trainer.max_steps``.

    It has a length, because Lightning fetches a batch ahead from a dataset without one, and the actions would
    then come from the policy before the latest updates.
    """

    def __init__(self, data: OnlineData, max_steps: int) -> None:
        super().__init__(data.batches, data._first_update, data.updates_per_step)
        self.max_steps = max_steps

    def __len__(self) -> int:
        return self.max_steps // self.updates_per_step
