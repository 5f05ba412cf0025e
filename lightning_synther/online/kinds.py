"""V-D4RL's kinds of data: who acts, in which parts of a dataset, and what is missing where a kind cannot be made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_synther.envs.config import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.online import policies
from lightning_synther.online.packing import Part
from lightning_synther.online.recorder import EpisodeSource, PolicyEpisodes, RecordedEpisodes
from lightning_synther.online.recording import Recording

HALVES = ("medium", "expert")  # of medium_expert, which V-D4RL makes of equal numbers of both


@dataclass(frozen=True)
class Kind:
    """Where a dataset's episodes come from.

    Attributes:
        parts: in the order in which they share an odd number of episodes.
        policies: prefix of a part's files to the policy's file, or ``random``; empty for a recording.
        recording: the recording that is rendered, where it is one.
        digest: tells it apart: of policy files or the recording's rows; empty for the random policy.
        card: where it came from.
    """

    parts: tuple[Part, ...]
    policies: dict[str, str]
    recording: Recording | None
    digest: str
    card: dict[str, Any]

    def source(
        self, config: EnvConfig, seed: int, directory: Path
    ) -> tuple[type[EpisodeSource], tuple[Any, ...]]:
        """What a worker hosts to make the episodes: a class and its arguments."""
        if self.recording is not None:
            return RecordedEpisodes, (config, str(self.recording.path), directory)
        return PolicyEpisodes, (config, self.policies, seed, directory)

    def num_episodes(self, transitions: int, max_steps: int | None) -> int:
        """Episodes that should hold ``transitions``: exact for a recording, else by the task's time limit."""
        if self.recording is None:
            return max(len(self.parts), -(-transitions // max_steps) if max_steps else 1)
        found = np.cumsum(self.recording.lengths - 1)
        if len(found) == 0 or found[-1] < transitions:
            raise ConfigError(
                f"transitions is {transitions}, but {self.recording.path} holds whole episodes of "
                f"{int(found[-1]) if len(found) else 0}: lower it, or record a longer training"
            )
        return int(np.searchsorted(found, transitions)) + 1

    def check_count(self, episodes: int) -> None:
        """Raise `ConfigError` where a recording holds fewer episodes."""
        if self.recording is not None and self.recording.num_episodes < episodes:
            raise ConfigError(
                f"episodes is {episodes}, but {self.recording.path} holds {self.recording.num_episodes} whole ones: "
                "lower it, or record a longer training"
            )


def find_kind(config: EnvConfig, policy: str, policy_path: str | None, replay_path: str | None) -> Kind:
    """The kind that ``policy`` names; beside a path it is a mere name.

    Raises `ConfigError` where a policy or recording that it takes is missing, or was made for another task or
    action repeat.
    """
    if Path(policy).name != policy or policy.startswith("."):
        raise ConfigError(
            f"policy {policy!r} cannot name a folder: "
            f"give a plain name as policy, and the file as policy_path"
        )
    if policy_path is not None and replay_path is not None:
        raise ConfigError(f"policy_path is {policy_path} and replay_path is {replay_path}: give one of them")
    if replay_path is not None:
        return _recorded(config, policy, replay_path)
    if policy_path is not None:
        return _played(config, {"": policy_path}, (Part(policy),))
    if policy == "medium_replay" and policy not in policies.available_policies(config.task):
        raise ConfigError(_no_recording(config.task))
    if policy == "medium_expert":
        _require_halves(config.task)
        parts = tuple(Part(half, f"{half}-") for half in HALVES)
        return _played(config, {part.prefix: part.name for part in parts}, parts)
    known = policies.available_policies(config.task)
    if policy not in known and not policy.endswith(".safetensors"):
        raise ConfigError(
            f"no policy {policy!r} for {config.task}: there are {', '.join(known)}, medium_expert (of medium and "
            "expert) and medium_replay (with replay_path); or give a .safetensors file as policy_path"
        )
    return _played(config, {"": policy}, (Part(policy),))


def _played(config: EnvConfig, sources: dict[str, str], parts: tuple[Part, ...]) -> Kind:
    for source in set(sources.values()) - {"random"}:
        behaviour = policies.load_policy(source, config.task)
        if behaviour.action_repeat not in (None, config.action_repeat):
            raise ConfigError(
                f"policy {source} was trained with action_repeat {behaviour.action_repeat}, "
                f"not {config.action_repeat}: set action_repeat to {behaviour.action_repeat}"
            )
    files = {prefix: _file(source, config.task) for prefix, source in sources.items()}
    digests = [
        hashlib.sha256(Path(file).read_bytes()).hexdigest() if file != "random" else ""
        for file in files.values()
    ]
    cards = {source: policies.read_card(source, config.task) for source in sources.values()}
    card = cards if len(cards) > 1 else next(iter(cards.values()))
    return Kind(parts, files, None, "+".join(digests), card)


def _file(source: str, task: str) -> str:
    """What a worker loads the policy from."""
    return source if source == "random" else str(policies.policy_path(source, task))


def _recorded(config: EnvConfig, policy: str, path: str) -> Kind:
    recording = Recording(path)
    made = recording.metadata
    for name in ("task", "action_repeat", "time_limit"):
        if getattr(made, name) != getattr(config, name):
            raise ConfigError(
                f"{path} was recorded with {name} {getattr(made, name)}, not {getattr(config, name)}: "
                f"set {name} to {getattr(made, name)}, or give another replay_path"
            )
    if recording.num_episodes == 0:
        raise ConfigError(f"{path} holds no whole episode: record a longer training")
    card = {"task": made.task, "level": policy, "recording": {"seed": made.seed, "versions": made.versions}}
    return Kind((Part(policy),), {}, recording, recording.digest(), card)


def _require_halves(task: str) -> None:
    known = policies.available_policies(task)
    if missing := [half for half in HALVES if half not in known]:
        raise ConfigError(
            f"medium_expert of {task} takes its policies medium and expert, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing: there are {', '.join(known)}"
        )


def _no_recording(task: str) -> str:
    return (
        f"medium_replay of {task} is rendered from a recording of a training, which is too large to ship: make one "
        "with `python -m lightning_synther fit --config configs/sac_state.yaml --data.init_args.record=DIR` "
        f"(and the task's name and sizes, if it is not cheetah_run), then `collect --task={task} "
        "--policy=medium_replay --replay_path=DIR`"
    )
