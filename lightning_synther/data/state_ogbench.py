"""OGBench's data sets of states (Park et al. 2024, arXiv 2410.20092): their NPZ files, or by name.

A trajectory of T transitions has T + 1 rows, and ``terminals`` is 1 at the last one, whose action leads nowhere:
those rows are dropped, as OGBench's own loader does. A trajectory's end is no terminal. What is one, and what is
rewarded, depends on the variant:

- ``...-singletask-v0``, ``...-singletask-task2-v0``: OGBench's own relabelling for the fixed task. A step that
  begins where the task is solved ends for good (its ``masks``); the trajectory goes on all the same.
- all others are goal-conditioned: `with_goals` chooses a goal for every transition and appends it to the
  observation.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.npz import opened
from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.data.state_goals import GoalDataset, with_goals
from lightning_synther.envs.gymnasium_env import NumpyRandom
from lightning_synther.envs.libraries import import_library
from lightning_synther.errors import BackendError, ConfigError, DataError

log = logging.getLogger(__name__)

_NAME = re.compile(
    r"(visual-)?(pointmaze|antmaze|humanoidmaze|antsoccer|cube|scene|puzzle|powderworld)-[-\w]+-v\d+"
)
_INFO = ("qpos", "button_states")
NEEDED = ("observations", "actions", "terminals")


def recognises(path: str) -> bool:
    """Whether ``path`` is an NPZ file of OGBench's arrays, or a name of its form that is no file."""
    if Path(path).suffix == ".npz" and Path(path).is_file():
        with opened(Path(path)) as file:
            return set(NEEDED) <= set(file) and "rewards" not in file
    return bool(_NAME.fullmatch(path)) and not Path(path).exists()


def load(
    path: str,
    *,
    name: str | None = None,
    split: Literal["train", "val"] = "train",
    dataset_dir: str = "~/.ogbench/data",
    env: str | Mapping[str, Any] | None = None,
    seed: int = 0,
    next_share: float = 0.2,
    later_share: float = 0.5,
    goal_discount: float = 0.99,
) -> StateDataset:
    """The transitions of a file, or of a name whose files are downloaded once.

    Args:
        path: NPZ file, or name, as in ``antmaze-medium-navigate-v0``.
        name: of a file, where it is not called by it; ``...-singletask-v0`` gives its transitions that task's
            rewards.
        split: training or validation file of a name.
        dataset_dir: where OGBench keeps files.
        env: environment for evaluation instead of OGBench's own, a task or fields of `EnvConfig`.
        seed: of the goals.
        next_share: share of the transitions whose goal is the next state.
        later_share: share whose goal is a later state of the trajectory; the rest get any state of the data.
        goal_discount: of the geometric distribution of how much later.

    Raises:
        DataError: the file is damaged, holds images, or lacks what the variant needs.
        BackendError: ogbench is not installed where it is needed, or its host cannot be reached.
    """
    given = Path(path).is_file()
    name = name or (Path(path).stem.removesuffix("-val") if given else path)
    file_name, env_name = parse_name(name) if _NAME.fullmatch(name) else (name, None)
    source = Path(path) if given else _provide(file_name, split, Path(dataset_dir).expanduser())
    arrays = _read(source)
    single_task = env_name is not None and "singletask" in env_name
    goals = (next_share, later_share, goal_discount, seed)
    if env_name is not None and single_task:
        rewards, masks = relabelled(name, env_name, arrays, source)
        arrays |= {"rewards": rewards, "terminals": masks == 0}
        references = None
    else:
        arrays |= with_goals(arrays["observations"], arrays["next_observations"], arrays["episodes"], *goals)
        references = (
            0.0,
            1.0,
        )  # an episode's return is 1 where the goal is reached: the score is the success rate
    fields = ("observations", "actions", "rewards", "terminals", "next_observations", "episodes")
    data = StateDataset.from_arrays(
        **{key: arrays[key] for key in fields},
        name=f"{name} ({source.stem})",
        env=env or (f"ogbench:{env_name}" if env_name else None),
        reference_scores=references if env_name else None,
    )
    return data if single_task else GoalDataset(**vars(data), mixture=goals)


def parse_name(name: str) -> tuple[str, str]:
    """(name of the file, id of the environment) of a data set, by OGBench's convention.

    >>> parse_name("antmaze-medium-navigate-v0")
    ('antmaze-medium-navigate-v0', 'antmaze-medium-v0')
    >>> parse_name("cube-single-play-singletask-task2-v0")
    ('cube-single-play-v0', 'cube-single-singletask-task2-v0')
    """
    words = name.split("-")
    if "oraclerep" in words:
        raise ConfigError(f"{name} has goals of OGBench's oracle, which are not read: leave out -oraclerep")
    if "singletask" in words:
        at = words.index("singletask")
        return "-".join([*words[:at], words[-1]]), "-".join([*words[: at - 1], *words[at:]])
    return name, "-".join([*words[:-2], words[-1]])


def _read(path: Path) -> dict[str, Any]:
    """Transitions of a file: what OGBench's ``load_dataset`` makes of it, and whose trajectory each one is."""
    with opened(path) as file:
        if missing := [key for key in NEEDED if key not in file]:
            raise DataError(
                f"{path} lacks {', '.join(missing)} (it has {', '.join(file)}): it is no data set of OGBench"
            )
        arrays = {key: file[key] for key in (*NEEDED, *_INFO, "valids") if key in file}
    if arrays["observations"].dtype == np.uint8:
        raise DataError(
            f"{path} holds images {arrays['observations'].shape[1:]}: an agent on states takes vectors, give the "
            "data set without visual- in its name, or make V-D4RL's pixels of it with `convert`"
        )
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1 or len(arrays["terminals"]) < 2:
        raise DataError(f"{path} has arrays of lengths {lengths}: get or make it again")
    # A compact data set marks two rows a trajectory as terminal; its ``valids`` say which is the last one.
    last = arrays.pop("terminals").reshape(-1) > 0.5 if "valids" not in arrays else arrays.pop("valids") < 0.5
    arrays.pop("terminals", None)
    last[-1] = True
    begins = ~last
    following = arrays["observations"][1:][begins[:-1]]
    episodes = np.concatenate([[0], np.cumsum(last[:-1])])[begins]
    return {key: array[begins] for key, array in arrays.items()} | {
        "next_observations": following,
        "episodes": episodes,
    }


def relabelled(
    name: str, env_name: str, arrays: dict[str, Any], path: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rewards and masks (N,) of the single task ``name``, by OGBench's own rule."""
    if "qpos" not in arrays:
        raise DataError(f"{path} lacks qpos, by which {name} is rewarded: get OGBench's own file")
    ogbench = import_library("ogbench", name)
    from ogbench.relabel_utils import relabel_dataset

    with NumpyRandom(0).in_use():
        env = ogbench.make_env_and_datasets(name, env_only=True)
        relabel_dataset(env_name, env, arrays)
        env.close()
    return arrays["rewards"], arrays["masks"]


def _provide(file_name: str, split: str, folder: Path) -> Path:
    """The file of a data set, downloaded where it is not there."""
    path = folder / f"{file_name}{'-val' if split == 'val' else ''}.npz"
    if path.is_file():
        return path
    ogbench = import_library("ogbench", f"downloading {file_name}")
    try:
        ogbench.download_datasets([file_name], str(folder))
    except Exception as error:  # of urllib, or of a name that the host does not have
        raise BackendError(
            f"{file_name} is not in {folder} and cannot be downloaded ({error}): download {path.name} where there "
            "is network, and give its path or --dataset_dir"
        ) from error
    return path
