"""Where the pixels come from: local files, else the published download, else a collection made here."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_synther.data.catalogue import is_published
from lightning_synther.data.download import download
from lightning_synther.data.replay import PixelReplay
from lightning_synther.data.subset import Subset
from lightning_synther.data.transfer import SourceUnavailableError
from lightning_synther.data.vd4rl import dataset_dir, load_vd4rl
from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.pool import EnvPool
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.online.provenance import FILE_NAME, read_provenance
from lightning_synther.stages.config.dataset import DatasetConfig
from lightning_synther.stages.real.local_files import has_data, other_collection, unfinished_download

log = logging.getLogger(__name__)

COLLECTED_EPISODES = 200  # V-D4RL's size: 100,000 transitions at action repeat 2


@dataclass(frozen=True)
class PixelDataset:
    """A loaded dataset, split into training and held-out episodes.

    Attributes:
        train: the part of the training episodes that is used.
        every: all of them.
        subset: which part that is, for the fingerprint of a stage; empty for all.
    """

    train: PixelReplay
    every: PixelReplay
    subset: Mapping[str, Any]
    heldout: PixelReplay | None
    source: str
    directory: Path
    fingerprint: str
    returns: np.ndarray
    action_dim: int

    def whole(self) -> PixelDataset:
        """The same with all training episodes."""
        return replace(self, train=self.every, subset={})


def provide_dataset(config: DatasetConfig, num_workers: int = 2) -> tuple[Path, str]:
    """Make sure the files of ``config`` are there; returns their folder and where they came from.

    The order is local, download, collect. A download that was interrupted is continued. One that cannot reach its
    host falls through to collecting, and says so, unless files of it are there; any other fault of a download (a
    wrong hash, a full disk) stops. `ConfigError` where a collection of other settings is there, `DataError` where
    the local files are an unfinished download.
    """
    directory = dataset_dir(config.root, config.task, config.policy, config.image_size)
    unfinished = unfinished_download(directory, config)
    partly = unfinished is not None and has_data(directory)  # asked before a repair sets damaged files aside
    if config.source in ("auto", "local") and (kind := _present(directory, config, unfinished, num_workers)):
        return directory, kind
    published = is_published(config.task, config.policy, config.image_size)
    collected = (directory / FILE_NAME).exists()
    if config.source == "download" or (config.source == "auto" and published and not collected):
        try:
            return _download(config), "downloaded"
        except SourceUnavailableError as error:
            if config.source == "download" or partly:
                raise
            log.warning("download is not possible here (%s); collecting the same kind of data instead", error)
    return _collect(config, num_workers), "collected"


def _present(directory: Path, config: DatasetConfig, unfinished: Path | None, num_workers: int) -> str | None:
    """What kind of dataset is there that can be used; None where ``auto`` has to complete or to make it."""
    if has_data(directory) and not unfinished:
        provenance = directory / FILE_NAME
        if not provenance.exists():
            return "local"
        if error := other_collection(directory, config, num_workers):
            raise error
        if config.source == "local" or _collected_enough(provenance, config):
            return "collected"
    if config.source == "auto":
        return None
    if unfinished:
        raise DataError(
            f"{unfinished} was not downloaded to its end, so {directory} holds a part of the dataset only: "
            "continue it by `download` or by --data.dataset.source=download, or delete it to use what is there"
        )
    raise ConfigError(
        f"data.dataset.source is local, but {directory} holds no dataset: "
        "give the folder that contains V-D4RL's main/ as --data.dataset.root, or set source to auto"
    )


def open_dataset(
    config: DatasetConfig, source: str, directory: Path, subset: Subset | None = None
) -> PixelDataset:
    """Load ``directory``, split off the held-out episodes, and choose ``subset`` (None: all) of the others."""
    episodes = load_vd4rl(
        directory, task=config.task, image_size=config.image_size, max_episodes=config.num_episodes
    )
    count = episodes.num_episodes
    if config.num_episodes is not None and count < config.num_episodes:
        raise ConfigError(
            f"data.dataset.num_episodes is {config.num_episodes}, but {directory} holds {count} episodes: "
            "lower it, or give null to use all of them"
        )
    heldout = math.ceil(config.holdout_fraction * count)
    if heldout >= count:
        raise ConfigError(
            f"data.dataset.holdout_fraction {config.holdout_fraction} of {count} episodes leaves none to "
            "train on: use more episodes, or give 0"
        )

    def replay(chosen: np.ndarray) -> PixelReplay:
        return PixelReplay(episodes, subset=chosen, **config.windows())

    subset = subset or Subset()
    training = np.arange(count - heldout)
    every = replay(training)
    return PixelDataset(
        train=every if subset.is_whole else replay(subset.choose(len(training), str(directory))),
        every=every,
        subset=subset.inputs(),
        heldout=replay(np.arange(count - heldout, count)) if heldout else None,
        source=source,
        directory=directory,
        fingerprint=episodes.fingerprint(),
        returns=np.asarray(episodes.returns),
        action_dim=int(episodes.action.shape[1]),
    )


def check_rendering(env: Mapping[str, Any]) -> None:
    """Render one frame of the task in a process of its own.

    Raises `ConfigError` for a task that does not exist and `BackendError` where OpenGL does not answer: both
    would otherwise come out at the first evaluation, after hours of training.
    """
    with EnvPool(EnvConfig.from_dict(dict(env)), num_envs=1, num_workers=1) as pool:
        pool.reset([0])


def _collected_enough(provenance: Path, config: DatasetConfig) -> bool:
    """A collection that was interrupted, or is smaller than asked for, is continued by `collect`."""
    made = read_provenance(provenance)
    return bool(made.get("complete", True)) and made["episodes"] >= (config.num_episodes or 1)


def _download(config: DatasetConfig) -> Path:
    return download(
        config.task,
        config.policy,
        image_size=config.image_size,
        root=config.root,
        mirror=config.mirror,
    )


def _collect(config: DatasetConfig, num_workers: int) -> Path:
    from lightning_synther.online.collect import collect

    return collect(
        task=config.task,
        policy=config.policy,
        root=config.root,
        episodes=config.num_episodes or COLLECTED_EPISODES,
        seed=config.collect_seed,
        image_size=config.image_size,
        num_workers=num_workers,
        action_repeat=config.action_repeat,
        time_limit=config.time_limit,
    )
