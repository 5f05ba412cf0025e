"""Minari's datasets of states (Farama's format; D4RL's successors among them), local ones or downloaded by id.

An episode has T + 1 observations and T steps, so nothing is derived and nothing dropped: a truncation is no
terminal and bootstraps from the last observation. Dicts of observations are flattened in the order of their
space, a goal included: AntMaze and PointMaze are [achieved_goal, desired_goal, observation].
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.minari import dataset_folder
from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.envs.libraries import import_library
from lightning_synther.envs.spaces import flat_size, flatten
from lightning_synther.errors import BackendError, ConfigError, DataError, SyntherError

log = logging.getLogger(__name__)

_ID = re.compile(r"[-_\w/]+-v\d+")
_NAMES = ("observations", "actions", "rewards", "terminals", "next_observations", "episodes")


def recognises(path: str) -> bool:
    """Whether ``path`` is the folder of a dataset, or has the form of an id and is no other file or folder.

    Ids without a namespace look like other things: they have to be there already.
    """
    if dataset_folder(Path(path)) is not None:
        return True
    if not _ID.fullmatch(path) or Path(path).exists():
        return False
    if "/" in path.strip("/"):
        return True
    try:
        return (_local(path) / "data").is_dir()
    except ModuleNotFoundError:  # no minari, no local datasets
        return False


def load(path: str, *, env: str | Mapping[str, Any] | None = None, download: bool = True) -> StateDataset:
    """The transitions of a dataset.

    Actions are rescaled by the dataset's action space. Environment and reference scores are those in its
    metadata (the evaluation environment, where it names one).

    Args:
        path: folder of the dataset, or its id, as in ``mujoco/hopper/medium-v0``.
        env: environment for evaluation instead of the dataset's own, a task or fields of `EnvConfig`.
        download: fetch an id that is not below MINARI_DATASETS_PATH.

    Raises:
        DataError: there is no such dataset, it is damaged, or its observations or actions are not vectors.
        BackendError: minari is not installed, or its host cannot be reached.
    """
    minari = import_library("minari", f"the dataset {path}")
    folder = dataset_folder(Path(path)) or dataset_folder(_local(path))
    if folder is None:
        if not download:
            raise DataError(
                f"{path} is no folder of a Minari dataset, and not below {_local('')}: set download=True"
            )
        folder = _download(path)
    try:
        dataset = minari.MinariDataset(folder)
        metadata = dataset.storage.metadata
        columns = [np.concatenate(parts) for parts in zip(*_episodes(dataset, path), strict=True)]
    except SyntherError:
        raise
    except Exception as error:  # whatever a damaged file leads to inside Minari
        raise DataError(f"{path} cannot be read by Minari ({error!r}): get or make it again") from error
    if not columns:
        raise DataError(f"{path} holds no episodes: give another dataset")
    low, high = dataset.action_space.low.reshape(-1), dataset.action_space.high.reshape(-1)
    bounded = np.isfinite([low, high]).all()
    known = (metadata.get("ref_min_score"), metadata.get("ref_max_score"))
    return StateDataset.from_arrays(
        **dict[str, Any](zip(_NAMES, columns, strict=True)),
        action_low=low if bounded else None,
        action_high=high if bounded else None,
        name=str(metadata["dataset_id"]),
        env=env or _environment(metadata.get("eval_env_spec") or metadata.get("env_spec")),
        reference_scores=None if None in known else (float(known[0]), float(known[1])),
    )


def _episodes(dataset: Any, path: str) -> Iterator[tuple[NDArray[Any], ...]]:
    """Columns of each episode, in the order of `_NAMES`."""
    try:
        flat_size(dataset.observation_space, path)
    except ConfigError as error:
        raise DataError(str(error)) from error
    if type(dataset.action_space).__name__ != "Box":
        raise DataError(
            f"{path} has actions of {dataset.action_space}: only vectors of numbers (Box) are learnt"
        )
    for episode in dataset.iterate_episodes():
        observations = flatten(dataset.observation_space, episode.observations, num_leading=1)
        actions = flatten(dataset.action_space, episode.actions, num_leading=1)
        if len(observations) != len(actions) + 1:
            raise DataError(
                f"episode {episode.id} of {path} has {len(observations)} observations and {len(actions)} actions: "
                "one more observation is needed, get or make it again"
            )
        number = np.full(len(actions), episode.id)
        yield observations[:-1], actions, episode.rewards, episode.terminations, observations[1:], number


def _environment(spec: str | None) -> dict[str, Any] | None:
    """Settings that make the environment of a `gymnasium.EnvSpec` in JSON."""
    if spec is None:
        return None
    content = json.loads(spec)
    kwargs = {key: value for key, value in content.get("kwargs", {}).items() if key != "render_mode"}
    if content.get("max_episode_steps") is not None:
        kwargs["max_episode_steps"] = content["max_episode_steps"]
    if wrappers := content.get("additional_wrappers"):
        names = ", ".join(wrapper.get("name", "?") for wrapper in wrappers)
        log.warning(
            "%s is evaluated without the wrappers that it was recorded with (%s)", content["id"], names
        )
    return {"task": f"gymnasium:{content['id']}", **({"env_kwargs": kwargs} if kwargs else {})}


def _download(name: str) -> Path:
    import minari

    try:
        minari.download_dataset(name)
    except ValueError as error:
        raise DataError(
            f"{name} is no folder of a Minari dataset, and Minari's host has none: {error}"
        ) from error
    except Exception as error:  # of whichever client reaches for the host
        reason = " ".join(str(error).split())[:200]
        raise BackendError(
            f"{name} is not below {_local('')} and cannot be downloaded ({type(error).__name__}: {reason}): run "
            f"`minari download {name}` where there is network, and copy its folder here or set "
            "MINARI_DATASETS_PATH"
        ) from error
    return _local(name) / "data"


def _local(name: str) -> Path:
    from minari.storage import get_dataset_path

    return Path(get_dataset_path(name))
