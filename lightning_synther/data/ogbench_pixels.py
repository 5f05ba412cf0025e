"""OGBench's visual data sets, of a single task, as episodes in V-D4RL's 64 px layout.

Goals given as images have no place in this project, so a single task is needed, which gives rewards. OGBench's
trajectories go on where the task is solved, live episodes end there: an episode ends with the first step that begins
solved, and the next one begins with the first state of the trajectory that is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightning_synther.data.npz import opened
from lightning_synther.data.state_ogbench import parse_name, relabelled
from lightning_synther.data.vd4rl import dataset_dir
from lightning_synther.data.writers import Episode, NpzWriter, require_absent, written_whole
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.progress import Progress

SIZE = 64


def to_pixels(path: Path, root: Path, name: str, policy: str | None = None, progress: bool = False) -> Path:
    """Write the file ``path`` as the data set ``main/ogbench:<environment>/<policy>/64px`` below ``root``.

    ``name`` is the data set's with its task, as in ``visual-cube-single-play-singletask-v0``, and says the kind of the
    data, here ``play``, unless ``policy`` does. The images of the file are held in memory. Raises `ConfigError` for a
    name without a single task, `DataError` for a file that holds no images of 64 x 64 or lacks what its task needs.
    """
    words = name.split("-")
    if "singletask" not in words:
        raise ConfigError(
            f"{name} has goals and no rewards: give --task with a single task, as in "
            f"{'-'.join([*words[:-1], 'singletask', words[-1]])}"
        )
    env_name = parse_name(name)[1]
    kind = policy or words[words.index("singletask") - 1]
    target = dataset_dir(root, f"ogbench:{env_name}", kind, SIZE)
    require_absent(target)
    arrays = _read(path)
    # The rows that end a trajectory are relabelled too: their rewards are not used, their actions lead nowhere.
    rewards, masks = relabelled(name, env_name, arrays, path)
    with (
        written_whole(target) as partial,
        Progress(f"{name} to pixels", None, "episodes", show=progress) as bar,
    ):
        writer = NpzWriter(partial)
        for rows in _episodes(arrays["terminals"] > 0.5, masks == 0):
            writer.append(*_episode(arrays, rewards, masks, rows))
            bar.update()
        if not writer.num_episodes:
            raise DataError(f"{path} holds no step that begins unsolved: give another task than {name}")
    return target


def _read(path: Path) -> dict[str, Any]:
    with opened(path) as file:
        wanted = ("observations", "actions", "terminals", "qpos", "button_states")
        arrays = {key: file[key] for key in wanted if key in file}
    if missing := [key for key in wanted[:3] if key not in arrays]:
        raise DataError(f"{path} lacks {', '.join(missing)}: it is no data set of OGBench")
    frames = arrays["observations"]
    if frames.dtype != np.uint8 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise DataError(
            f"{path} has observations {frames.dtype} {frames.shape[1:]}: images of {SIZE} x {SIZE} are converted, "
            "states are read with load_states"
        )
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path} has arrays of lengths {lengths}: get or make it again")
    return arrays


def _episodes(last: np.ndarray, solved: np.ndarray) -> Iterator[slice]:
    """Rows of the observations of each episode, two at least."""
    start: int | None = None
    for row in range(len(last)):
        if start is None and not (solved[row] or last[row]):
            start = row
        elif start is not None and (last[row] or solved[row - 1]):
            yield slice(start, row + 1)
            start = None if last[row] or solved[row] else row
        # A step that begins solved still belongs to the episode: it is the one that ends it.
    if start is not None and start + 1 < len(last):
        yield slice(start, len(last))


def _episode(arrays: dict[str, Any], rewards: np.ndarray, masks: np.ndarray, rows: slice) -> Episode:
    """Row t gets what led to it: the action, reward and mask of the row before."""
    led = slice(rows.start, rows.stop - 1)
    action = arrays["actions"][led]
    return Episode(
        frames=arrays["observations"][rows].transpose(0, 3, 1, 2),
        action=np.concatenate([np.zeros_like(action[:1]), action]),
        reward=np.concatenate([[0], rewards[led]]),
        discount=np.concatenate([[1], masks[led]]),
    )
