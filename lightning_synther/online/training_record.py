"""What the run directory of an online run says about its training: command, settings, learning curve, minutes.

Nothing here needs torch.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightning_synther.errors import DataError

COMMAND = "command.txt"
CURVE_POINTS = 60


class Episode(NamedTuple):
    """A finished training episode."""

    agent_steps: int
    episode_return: float
    wall_time: float


@dataclass(frozen=True)
class TrainingRecord:
    """The run that a checkpoint lies in.

    Attributes:
        run_dir: the run directory.
        config: its config.yaml.
        episodes: training episodes in order, with the exploring policy.
    """

    run_dir: Path
    config: dict[str, Any]
    episodes: list[Episode]

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> TrainingRecord:
        """Of ``<run>/agent/<name>.ckpt``; raises `DataError` where no online run has left its files around it."""
        run_dir = checkpoint.absolute().parent.parent
        try:
            config = yaml.safe_load((run_dir / "config.yaml").read_text())
            config["data"]["init_args"]["start_steps"]
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise DataError(
                f"{run_dir} is not the folder of an online run, its config.yaml is missing or of another kind: "
                "give a checkpoint where `fit` wrote it, <run_dir>/agent/<name>.ckpt"
            ) from error
        episodes = _read_episodes(run_dir / "tensorboard" / checkpoint.absolute().parent.name)
        if not episodes:
            raise DataError(
                f"{run_dir}/tensorboard holds no training episode: nothing has been trained there"
            )
        return cls(run_dir, config, episodes)

    def agent_steps(self, num_updates: int) -> int:
        """Agent steps that had been taken when the agent had had so many updates."""
        data = self.config["data"]["init_args"]
        start = math.ceil(data["start_steps"] / data["num_envs"]) * data["num_envs"]
        return start + int(num_updates / data["update_to_data_ratio"])

    def card(self, num_updates: int) -> dict[str, Any]:
        """The training's part of the card of a policy taken after ``num_updates`` updates."""
        agent_steps = self.agent_steps(num_updates)
        episodes = [episode for episode in self.episodes if episode.agent_steps <= agent_steps]
        seconds = episodes[-1].wall_time - self.episodes[0].wall_time if episodes else 0.0
        path = self.run_dir / COMMAND
        return {
            "command": path.read_text().strip() if path.exists() else None,
            "seed": self.config["seed_everything"],
            "num_updates": num_updates,
            "agent_steps": agent_steps,
            "minutes": round(seconds / 60, 1),
            "hardware": describe_machine(),
            "learning_curve": learning_curve(episodes),
        }


def learning_curve(episodes: list[Episode], points: int = CURVE_POINTS) -> list[list[float]]:
    """At most ``points`` pairs [agent steps, mean return] of successive episodes, equally many in each mean."""
    size = max(1, math.ceil(len(episodes) / points))
    groups = [episodes[i : i + size] for i in range(0, len(episodes), size)]
    return [
        [group[-1].agent_steps, round(sum(episode.episode_return for episode in group) / len(group), 1)]
        for group in groups
    ]


def describe_machine() -> str:
    """Number of cores and the processor's name."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if "model name" in line), name)
    return f"{os.cpu_count()} cores of {name}"


def _read_episodes(directory: Path) -> list[Episode]:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    if not directory.is_dir():
        return []
    events = EventAccumulator(str(directory), size_guidance={SCALARS: 0}).Reload()
    names = ("train/episode_return", "train/agent_steps")  # in a section, or (older runs) in none
    tags = [tag for name in names for tag in events.Tags()["scalars"] if tag.endswith(name)]
    if len(tags) != len(names):
        return []
    returns, steps = (events.Scalars(tag) for tag in tags)
    return [
        Episode(int(step.value), value.value, value.wall_time)
        for value, step in zip(returns, steps, strict=True)
    ]
