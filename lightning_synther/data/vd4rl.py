"""The V-D4RL benchmark (Lu et al. 2022, arXiv 2206.04779): where its files lie, and how they are read.

At 84 pixels a dataset is a handful of HDF5 files of many episodes, at 64 pixels one NPZ file for each
episode. The names of the files are irregular (``0.hdf5``, ``3_cheetah_run_expert.hdf5``,
``shard_10_reward_473.hdf5``) and mean nothing here but an order, in which numbers count as numbers.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lightning_synther.data.episodes import Episodes, replicate_edges
from lightning_synther.data.frame_cache import FrameCache, Write, describe
from lightning_synther.data.hdf5 import read_hdf5
from lightning_synther.data.npz import read_npz
from lightning_synther.data.recording import FrameBlock, Recording
from lightning_synther.data.writers import Hdf5Writer, NpzWriter
from lightning_synther.errors import ConfigError, DataError

__all__ = ["Hdf5Writer", "NpzWriter", "dataset_dir", "load_vd4rl"]

PAD = 4  # margin of DrQ-v2's random shift (Yarats et al. 2021), with which frames are stored
_READERS = {".hdf5": read_hdf5, ".npz": read_npz}


def dataset_dir(root: str | os.PathLike[str], task: str, policy: str, image_size: int) -> Path:
    """Folder of one dataset in the official layout.

    >>> dataset_dir("data", "cheetah_run", "medium", 84).as_posix()
    'data/main/cheetah_run/medium/84px'
    """
    return Path(root) / "main" / task / policy / f"{image_size}px"


def load_vd4rl(
    directory: str | os.PathLike[str],
    *,
    task: str = "",
    image_size: int = 84,
    cache: bool = True,
    max_episodes: int | None = None,
    num_threads: int | None = None,
) -> Episodes:
    """Read all HDF5 or NPZ files of ``directory``, or map the inflated copy that an earlier call left.

    Args:
        directory: folder that holds the files themselves, see `dataset_dir`.
        task: name that the result carries.
        image_size: height and width in pixels that the frames must have.
        cache: keep an inflated copy (25 kB a frame at 84 pixels) and map it; False reads into memory.
        max_episodes: take this many episodes at most, from the first file on; further files are not touched.
        num_threads: threads that inflate; by default the machine's cores, up to four.

    Raises:
        DataError: the folder is missing or empty, or a file is damaged, foreign, or of another image size.
        ConfigError: ``max_episodes`` is less than one.

    >>> from lightning_synther import collect
    >>> short = {"image_size": 64, "time_limit": 0.2, "num_workers": 0, "progress": False}
    >>> folder = collect("cartpole_swingup", root="filmed", episodes=2, **short)
    >>> episodes = load_vd4rl(folder, image_size=64)
    >>> episodes.frames.shape, episodes.lengths
    ((22, 3, 64, 64), array([11, 11]))
    """
    if max_episodes is not None and max_episodes < 1:
        raise ConfigError(f"max_episodes is {max_episodes}: give 1 or more, or None for all")
    files = list_files(Path(directory))
    store = FrameCache(Path(directory), image_size, PAD)
    episodes = store.find(describe(files), max_episodes, task) if cache else None
    if episodes is None:
        episodes = _read(files, store if cache else None, task, image_size, max_episodes, num_threads)
    return episodes if max_episodes is None else episodes.first(max_episodes)


def _read(
    files: list[Path],
    store: FrameCache | None,
    task: str,
    image_size: int,
    max_episodes: int | None,
    num_threads: int | None,
) -> Episodes:
    """Inflate ``files`` into the cache and map it; into memory where there is no cache."""
    recordings = _read_recordings(files, image_size, max_episodes)
    columns = _join(recordings)
    blocks = [block for recording in recordings for block in recording.blocks]
    read = partial(_read_blocks, blocks, image_size, num_threads or min(4, os.cpu_count() or 1))
    if store and store.store(describe(files[: len(recordings)]), columns, read):
        episodes = store.find(describe(files), max_episodes, task)
        if episodes:
            return episodes
    side = image_size + 2 * PAD
    padded = np.empty((len(columns["reward"]), 3, side, side), np.uint8)

    def keep(start: int, frames: NDArray[np.uint8]) -> None:
        padded[start : start + len(frames)] = frames

    read(keep)
    return Episodes.from_padded(padded, PAD, task=task, **columns)


def list_files(directory: Path) -> list[Path]:
    """Data files of ``directory`` in natural order; raises `DataError` where there are none, or two kinds."""
    if not directory.is_dir():
        raise DataError(
            f"{directory} is not a folder: give one that holds V-D4RL files, or download or collect them"
        )
    files = [path for path in directory.iterdir() if path.suffix in _READERS and path.name[0] != "."]
    if not files:
        raise DataError(
            f"{directory} holds no .hdf5 or .npz files: give another folder, or download or collect data"
        )
    if len({path.suffix for path in files}) > 1:
        raise DataError(f"{directory} holds both .hdf5 and .npz files: move one kind to a folder of its own")
    return sorted(files, key=_natural)


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Sort key that puts ``shard_2`` before ``shard_10``."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def _read_recordings(files: list[Path], image_size: int, max_episodes: int | None) -> list[Recording]:
    """The columns of the first files that hold ``max_episodes`` episodes, of all files if None."""
    recordings: list[Recording] = []
    num_episodes = 0
    for path in files:
        recordings.append(_READERS[path.suffix](path, image_size))
        found, wanted = recordings[-1].action.shape[1], recordings[0].action.shape[1]
        if found != wanted:
            raise DataError(
                f"{path} has actions of {found} numbers, {files[0]} of {wanted}: "
                "keep one task's files in a folder"
            )
        num_episodes += len(recordings[-1].lengths)
        if max_episodes is not None and num_episodes >= max_episodes:
            break
    return recordings


def _join(recordings: list[Recording]) -> dict[str, NDArray[Any]]:
    names = ("action", "reward", "discount", "lengths")
    return {name: np.concatenate([getattr(recording, name) for recording in recordings]) for name in names}


def _read_blocks(blocks: list[FrameBlock], image_size: int, num_threads: int, write: Write) -> None:
    """Read, pad and write every block; as many are in memory at a time as there are threads."""
    sizes = [block.num_rows for block in blocks]
    starts = np.cumsum(sizes) - sizes
    side = image_size + 2 * PAD
    own = local()  # one buffer per thread: fresh pages for every block would cost as much as copying it

    def transfer(start: int, block: FrameBlock) -> int:
        if not hasattr(own, "buffer"):
            own.buffer = np.empty((max(sizes), 3, side, side), np.uint8)
        padded = own.buffer[: block.num_rows]
        block.read(padded[:, :, PAD:-PAD, PAD:-PAD])
        replicate_edges(padded, PAD)
        write(start, padded)
        return block.num_rows

    bar = tqdm(total=sum(sizes), unit=" frames", desc="reading frames", delay=2, disable=None)
    with ThreadPoolExecutor(num_threads) as pool, bar:
        for num_rows in pool.map(transfer, starts.tolist(), blocks):
            bar.update(num_rows)
