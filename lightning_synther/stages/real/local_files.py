"""What lies in the folder of a pixel dataset already: whether that is a whole dataset, and the one that is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_synther.data.catalogue import is_published
from lightning_synther.data.download import interrupted_download
from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.pool import EnvPool
from lightning_synther.errors import ConfigError
from lightning_synther.online.provenance import FILE_NAME, other_request, read_provenance
from lightning_synther.stages.config.dataset import DatasetConfig


def has_data(directory: Path) -> bool:
    """Whether ``directory`` holds data files."""
    return directory.is_dir() and any(p.suffix in (".hdf5", ".npz") for p in directory.iterdir())


def unfinished_download(directory: Path, config: DatasetConfig) -> Path | None:
    """A file of the published dataset that an interrupted download or repair left in ``directory``, if any."""
    published = is_published(config.task, config.policy, config.image_size)
    return interrupted_download(directory) if published and not (directory / FILE_NAME).exists() else None


def other_collection(directory: Path, config: DatasetConfig, num_workers: int = 2) -> ConfigError | None:
    """What is wrong where ``directory`` holds a collection of other settings than those of ``config``.

    The seed of one that is taken as ``local`` is its own affair.
    """
    provenance = directory / FILE_NAME
    made: dict[str, Any] = read_provenance(provenance)["request"] if provenance.exists() else {}
    settings = {"seed": "collect_seed", "action_repeat": "action_repeat", "time_limit": "time_limit"}
    for name, setting in settings.items():
        wanted = getattr(config, setting)
        if name not in made or made[name] == wanted or (name == "seed" and config.source == "local"):
            continue
        if name == "time_limit" and _same_length(config, made[name], wanted, num_workers=min(num_workers, 1)):
            continue
        found = "null" if made[name] is None else made[name]
        advice = f"give another data.dataset.root, or {found} as data.dataset.{setting}"
        return other_request(directory, name, made[name], wanted, advice)
    return None


def why_unusable(directory: Path, config: DatasetConfig) -> str:
    """Why a dataset that was provided earlier has to be provided anew; empty where it is as it was."""
    if not has_data(directory):
        return f"{directory} has gone"
    if unfinished := unfinished_download(directory, config):
        return f"{unfinished} was not downloaded to its end"
    return str(other_collection(directory, config) or "")


def _same_length(config: DatasetConfig, *limits: float | None, num_workers: int) -> bool:
    """Whether one limit is the task's own (None) and the other as many actions."""
    if None not in limits:
        return False
    lengths = set()
    for limit in limits:
        env = EnvConfig(
            config.task, action_repeat=config.action_repeat, time_limit=limit, observation="states"
        )
        with EnvPool(env, num_envs=1, num_workers=num_workers) as pool:
            lengths.add(pool.max_steps)
    return len(lengths) == 1
