"""Recordings of a training's replay memory, as physics states: frames are rendered from them later.

A recording is a folder. ``rows.npy`` is a structured array with one row for every observation that the agent
made, in the order of time; row by row it follows V-D4RL's alignment (action, reward and discount *led to* the
state). ``metadata.json`` says in which environment. While a training runs the folder is called
``<path>.partial``. States are float64: rendered, they give the very bytes that the live episode would have.

Worker processes import this file, so it must not import torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_synther.errors import DataError

ROWS, METADATA = "rows.npy", "metadata.json"
_PACKAGES = ("dm-control", "mujoco", "numpy")


@dataclass(frozen=True)
class RecordingMetadata:
    """The environment of a recording, and the seed that its episodes derive from."""

    FORMAT: ClassVar[str] = "lightning_synther.replay_recording"
    VERSION: ClassVar[int] = 1

    task: str
    action_repeat: int
    time_limit: float | None
    seed: int
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in _PACKAGES})
    machine: str = field(default_factory=platform.machine)

    def write(self, folder: Path) -> None:
        """Write ``metadata.json`` into ``folder``."""
        content = {"format": self.FORMAT, "format_version": self.VERSION, **asdict(self)}
        (folder / METADATA).write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> RecordingMetadata:
        """Read it again; `DataError` where it is missing or means something else."""
        path = folder / METADATA
        try:
            content = json.loads(path.read_text())
            found = (content.pop("format"), content.pop("format_version"))
            if found == (cls.FORMAT, cls.VERSION):
                return cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        raise DataError(
            f"{path} is not the metadata of a replay recording: give the folder that a training wrote"
        )


def row_type(state_dim: int, action_dim: int) -> np.dtype[Any]:
    """One observation: its episode, that episode's seed, the step in it (0: the reset), and what led to it."""
    return np.dtype(
        [
            ("episode", "<i8"),
            ("seed", "<i8"),
            ("step", "<i4"),
            ("last", "?"),
            ("state", "<f8", (state_dim,)),
            ("action", "<f4", (action_dim,)),
            ("reward", "<f4"),
            ("discount", "<f4"),
        ]
    )


class Recording:
    """A finished recording, its rows mapped; episodes count in the order in which they began.

    Attributes:
        metadata: the environment.
        lengths: (E,) observations of each whole episode; one that the training's end cut off is left out.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            unfinished = self.path.with_name(self.path.name + ".partial").is_dir()
            make = f"make one with `fit --config configs/sac_state.yaml --data.init_args.record={path}`"
            hint = "its training is unfinished, run it again" if unfinished else make
            raise DataError(f"there is no replay recording {self.path}: {hint}")
        self.metadata = RecordingMetadata.read(self.path)
        self._rows = _map_rows(self.path / ROWS)
        episode = np.asarray(self._rows["episode"])
        order = np.argsort(episode, kind="stable")
        cuts = np.flatnonzero(np.diff(episode[order])) + 1
        groups = np.split(order, cuts) if len(order) else []
        self._episodes = [group for group in groups if self._is_whole(group)]
        self.lengths = np.array([len(group) for group in self._episodes], np.int64)

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self._episodes)

    def episode(self, index: int) -> NDArray[Any]:
        """The rows (T,) of whole episode ``index``, copied."""
        return self._rows[self._episodes[index]]

    def digest(self) -> str:
        """SHA-256 of the rows."""
        hasher = hashlib.sha256()
        for start in range(0, len(self._rows), 65_536):
            hasher.update(np.ascontiguousarray(self._rows[start : start + 65_536]).tobytes())
        return hasher.hexdigest()

    def _is_whole(self, group: NDArray[np.int64]) -> bool:
        steps, last = self._rows["step"][group], self._rows["last"][group]
        return bool(last[-1]) and np.array_equal(steps, np.arange(len(group)))


def _map_rows(path: Path) -> NDArray[Any]:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is cut off or no array ({error}): record the training again") from error
    names = row_type(1, 1).names
    if rows.ndim != 1 or rows.dtype.names != names:
        raise DataError(f"{path} holds {rows.dtype}, not the rows of a replay recording: give another folder")
    return rows
