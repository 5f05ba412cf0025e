"""Settings of the dataset that a chain starts from."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_synther.bounds import check_counts, check_shares
from lightning_synther.errors import ConfigError


@dataclass
class DatasetConfig:
    """Which pixels the chain starts from.

    Args:
        task: dm_control task, as in ``cheetah_run``.
        policy: V-D4RL's dataset kind (random, medium, expert, ...).
        image_size: 84 (HDF5 files) or 64 (NPZ files).
        root: folder that holds V-D4RL's layout, ``<root>/main/<task>/<policy>/<84px|64px>/``.
        source: where the data may come from; ``auto`` takes local files, else downloads, else collects.
        num_episodes: use the first so many episodes, and collect so many (None: all; 200 when collecting).
        holdout_fraction: share of whole episodes, the last ones, kept from all training, to judge fidelity
            against.
        collect_seed: seed of a collection.
        mirror: another base URL to download from.
        frame_stack: frames in an observation.
        action_repeat: environment steps per action, as in the data.
        time_limit: simulated seconds of an episode, in a collection and in evaluation (None: the task's own).
        n_step: steps folded into one transition's return.
        gamma: discount of one step.
    """

    task: str = "cheetah_run"
    policy: str = "medium"
    image_size: Literal[84, 64] = 84
    root: str = "data/vd4rl"
    source: Literal["auto", "local", "download", "collect"] = "auto"
    num_episodes: int | None = None
    holdout_fraction: float = 0.05
    collect_seed: int = 0
    mirror: str | None = None
    frame_stack: int = 3
    action_repeat: int = 2
    time_limit: float | None = None
    n_step: int = 3
    gamma: float = 0.99

    def __post_init__(self) -> None:
        if not 0.0 <= self.holdout_fraction < 1.0:
            raise ConfigError(f"dataset.holdout_fraction is {self.holdout_fraction}: give a share in [0, 1)")
        if self.num_episodes is not None and self.num_episodes < 1:
            raise ConfigError(
                f"dataset.num_episodes is {self.num_episodes}: give at least 1, or null for all"
            )
        check_counts("dataset", n_step=self.n_step)
        check_shares("dataset", gamma=self.gamma)

    def env(self) -> dict[str, Any]:
        """The environment that agents trained on this dataset act in (fields of `EnvConfig`)."""
        env = {
            "task": self.task,
            "observation": "pixels",
            "image_size": self.image_size,
            "frame_stack": self.frame_stack,
            "action_repeat": self.action_repeat,
        }
        return env if self.time_limit is None else {**env, "time_limit": self.time_limit}

    def files(self) -> dict[str, Any]:
        """Which files are meant, without what is made of them."""
        views = ("holdout_fraction", "frame_stack", "n_step", "gamma")
        return {key: value for key, value in asdict(self).items() if key not in views}

    def windows(self) -> dict[str, Any]:
        """How transitions are cut from episodes."""
        return {"frame_stack": self.frame_stack, "n_step": self.n_step, "gamma": self.gamma}


@dataclass
class StateDatasetConfig:
    """Which states the chain starts from: data that exist, or a policy that is played here.

    Args:
        path: file, folder or published name of offline data (`load_states`); None plays `policy` here.
        format: of these data; ``auto`` recognises it.
        options: of the loader of that format.
        task: what is played: a dm_control task, as in ``cheetah_run``, or ``gymnasium:<id>``.
        policy: who plays it: a shipped policy, ``random``, or a .safetensors policy file; ``random+medium``
            for two that play an episode each in turn (`collect_states`).
        num_episodes: how many episodes are played.
        collect_seed: seed of a collection.
        action_repeat: environment steps per action of a collection (None: 2 in dm_control, 1 elsewhere).
        time_limit: simulated seconds of an episode of a collection (None: the task's own).
        root: folder for collections.
        holdout_fraction: share of whole episodes, the last ones, kept from all training, to judge fidelity
            against.
        gamma: discount of one step.
    """

    path: str | None = None
    format: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    task: str = "cheetah_run"
    policy: str = "medium"
    num_episodes: int = 200
    collect_seed: int = 0
    action_repeat: int | None = None
    time_limit: float | None = None
    root: str = "data/states"
    holdout_fraction: float = 0.05
    gamma: float = 0.99

    def __post_init__(self) -> None:
        if not 0.0 <= self.holdout_fraction < 1.0:
            raise ConfigError(f"dataset.holdout_fraction is {self.holdout_fraction}: give a share in [0, 1)")
        check_counts("dataset", num_episodes=self.num_episodes)
        check_shares("dataset", gamma=self.gamma)

    def env(self) -> dict[str, Any] | None:
        """The environment of a collection (fields of `EnvConfig`); data from elsewhere say theirs themselves."""
        if self.path is not None:
            return None
        played = {"task": self.task, "action_repeat": self.action_repeat, "time_limit": self.time_limit}
        return {"observation": "states", **{key: value for key, value in played.items() if value is not None}}

    def collection(self) -> dict[str, Any]:
        """What a collection depends on."""
        keys = ("task", "policy", "num_episodes", "collect_seed", "action_repeat", "time_limit")
        found = {key: getattr(self, key) for key in keys}
        file = Path(self.policy)
        if (
            file.suffix == ".safetensors" and file.is_file()
        ):  # its path alone does not tell one training from another
            found["policy_fingerprint"] = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
        return found

    def files(self) -> dict[str, Any]:
        """Which data are meant, without what is made of them."""
        if self.path is None:
            return {**self.collection(), "root": self.root}
        return {"path": self.path, "format": self.format, "options": self.options}

    def collected(self) -> Path:
        """Where a collection of these settings lies."""
        settings = {key: value for key, value in self.collection().items() if value is not None}
        del settings["task"], settings["policy"]
        name = "-".join(f"{key}_{value}" for key, value in settings.items())
        return Path(self.root) / self.task.replace(":", "_") / Path(self.policy).stem / name
