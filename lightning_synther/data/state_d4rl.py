"""D4RL's arrays, in a file of whatever container (Fu et al. 2020, arXiv 2004.07219).

Arrays ``observations`` (N, O), ``actions`` (N, A), ``rewards``, ``terminals``, and mostly ``timeouts``, (N,);
``next_observations`` (N, O) in some. Other entries (``infos``, ``metadata``) are left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.errors import DataError
from lightning_synther.evaluation.references import D4RL, d4rl_family, is_of_family

log = logging.getLogger(__name__)

NEEDED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "next_observations")
#: Family of locomotion data -> size of its observations, and the environment that gives just those.
ENVIRONMENTS = {
    "halfcheetah": (17, "gymnasium:HalfCheetah-v4"),
    "hopper": (11, "gymnasium:Hopper-v4"),
    "walker2d": (17, "gymnasium:Walker2d-v4"),
    "ant": (27, "gymnasium:Ant-v4"),
}
ANT_WITH_CONTACT_FORCES = (
    111  # observations of the published files of ant, which no present environment gives
)
LOCOMOTION_STEPS = 1000  # D4RL's time limit of these


def load(
    opened: Callable[[Path], AbstractContextManager[Mapping[str, Any]]],
    path: str,
    *,
    env: str | Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    action_low: ArrayLike | None = None,
    action_high: ArrayLike | None = None,
    reference_scores: tuple[float, float] | None = None,
) -> StateDataset:
    """The transitions of one file.

    Its name says the family (``hopper_medium-v2.hdf5``): reference scores, and for locomotion the environment and
    the time limit, are D4RL's where they are not given. With an ``env`` that is not Gymnasium's of that family, or
    locomotion of another size, the name says nothing.

    Args:
        opened: opens a file of the container.
        path: the file.
        env: environment for evaluation, a task or fields of `EnvConfig`.
        max_episode_steps: length of an episode, for a file without ``timeouts`` and ``next_observations``.
        action_low: lower bounds of the actions (None: -1).
        action_high: upper bounds (None: 1).
        reference_scores: returns that count as 0 and as 100.

    Raises:
        DataError: the file is damaged, lacks arrays, or holds what is no transition (`StateDataset.from_arrays`).
    """
    with opened(Path(path)) as file:
        arrays = read_arrays(path, file)
    settings = {"env": env, "max_episode_steps": max_episode_steps, "reference_scores": reference_scores}
    return StateDataset.from_arrays(
        **arrays,
        action_low=action_low,
        action_high=action_high,
        name=path,
        **by_name(path, arrays["observations"], settings),
    )


def read_arrays(path: str, file: Mapping[str, Any]) -> dict[str, Any]:
    """D4RL's arrays in an opened file; `DataError` lists what is there instead."""
    if missing := [name for name in NEEDED if name not in file]:
        found = ", ".join(list(file)[:8]) + ", ..." * (len(file) > 8)
        zeros = ", and terminals are zeros where nothing ends for good" * ("terminals" in missing)
        raise DataError(
            f"{path} lacks {', '.join(missing)} (it has {found or 'nothing'}): transitions need "
            f"{', '.join(NEEDED)}{zeros}"
        )
    return {name: np.asarray(file[name]) for name in (*NEEDED, *OPTIONAL) if name in file}


def by_name(path: str, observations: NDArray[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` of a D4RL file, completed with what its name says."""
    family, env = d4rl_family(Path(path).stem), settings["env"]
    given = env.get("task", "") if isinstance(env, Mapping) else env
    if family is None or (given is not None and not is_of_family(given, family)):
        return dict(settings)
    said: dict[str, Any] = {"reference_scores": D4RL[family]}
    if family in ENVIRONMENTS:
        (size, task), found = ENVIRONMENTS[family], np.shape(observations)[1:]
        if found != (size,) and (family, found) != ("ant", (ANT_WITH_CONTACT_FORCES,)):
            return dict(settings)  # dm_control's hopper and such
        said["max_episode_steps"] = LOCOMOTION_STEPS
        said["env"] = task if found == (size,) else None
    completed = {key: said.get(key) if value is None else value for key, value in settings.items()}
    log.info("%s is D4RL's %s by its name: %s", path, family, completed)
    return completed
