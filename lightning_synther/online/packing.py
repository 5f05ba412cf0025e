"""From the episodes that workers leave to the files of a dataset: resumable, in order, in bounded memory.

Workers leave every episode as an NPZ file. That is the 64 px layout already; for the 84 px layout these are
parts, packed into HDF5 files of `EPISODES_PER_FILE` episodes as soon as they are there.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lightning_synther.data.vd4rl import Hdf5Writer
from lightning_synther.online.provenance import Provenance
from lightning_synther.online.recorder import Job

EPISODES_PER_FILE = 25  # about 35 MB of HDF5


@dataclass(frozen=True)
class Part:
    """Episodes of one behaviour policy: all of a dataset, or one half of ``medium_expert``.

    ``name`` ends the names of its HDF5 files, ``prefix`` begins those of its NPZ files (empty for a sole part).
    """

    name: str
    prefix: str = ""


class Packer:
    """Turns the episodes of one part into the dataset's files, in order, and keeps the record."""

    def __init__(self, record: Provenance, part: Part, num_episodes: int) -> None:
        self._record, self._part, self._num_episodes = record, part, num_episodes
        self._hdf5 = record.request.image_size != 64
        self.directory = parts_dir(record)

    @property
    def num_finished(self) -> int:
        """Episodes in finished files: always the first so many of the part."""
        return sum(len(self._record.files[name]) for name in self._names)

    @property
    def num_transitions(self) -> int:
        """Transitions in finished files."""
        counts = []
        for name in self._names:
            if self._hdf5:
                with h5py.File(self._record.directory / name) as file:
                    counts.append(len(file["reward"]) - len(self._record.files[name]))
            else:
                counts.append(int(Path(name).stem.rsplit("-", 1)[-1]))
        return sum(counts)

    def missing(self) -> list[Job]:
        """Episodes that are neither in a finished file nor left by a worker."""
        indices = range(self.num_finished, self._num_episodes)
        return [Job(self._part.prefix, i) for i in indices if not self._episode(i)]

    def pack(self) -> None:
        """Finish every file whose episodes are all there."""
        while (first := self.num_finished) < self._num_episodes:
            last = min(first + (EPISODES_PER_FILE if self._hdf5 else 1), self._num_episodes)
            episodes = [path for i in range(first, last) if (path := self._episode(i))]
            if len(episodes) < last - first:
                return
            name = self._write(episodes) if self._hdf5 else episodes[0].name
            self._record.files[name] = [_episode_return(path) for path in episodes]
            self._record.save()
            if self._hdf5:
                for path in episodes:
                    path.unlink()

    @property
    def _names(self) -> list[str]:
        request, part = self._record.request, self._part
        if self._hdf5:
            return [name for name in self._record.files if name.endswith(f"_{request.task}_{part.name}.hdf5")]
        return [name for name in self._record.files if name.startswith(part.prefix)]

    def _episode(self, index: int) -> Path | None:
        return next(self.directory.glob(f"{self._part.prefix}{index:06d}-*.npz"), None)

    def _write(self, episodes: list[Path]) -> str:
        name = f"{len(self._names)}_{self._record.request.task}_{self._part.name}.hdf5"
        with Hdf5Writer(self._record.directory / name) as writer:
            for path in episodes:
                with np.load(path, allow_pickle=False) as episode:
                    writer.append(
                        episode["image"].transpose(0, 3, 1, 2),
                        episode["action"],
                        episode["reward"],
                        episode["discount"],
                    )
        return name


def parts_dir(record: Provenance) -> Path:
    """Where workers leave their episodes."""
    return record.directory if record.request.image_size == 64 else record.directory / ".parts"


def clean(record: Provenance) -> None:
    """Remove the folder of parts; every one is in a file now."""
    if parts_dir(record) != record.directory:
        shutil.rmtree(parts_dir(record), ignore_errors=True)


def _episode_return(path: Path) -> float:
    with np.load(path, allow_pickle=False) as episode:
        return float(episode["reward"].sum(dtype=np.float64))
