"""Write episodes in V-D4RL's two layouts: one HDF5 file of many episodes, or one NPZ file for each.

Nothing half-written ever bears a data file's name: everything goes to a name that the reader ignores, and is
renamed when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import deflate
import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_synther.data.recording import FIRST, LAST, MID
from lightning_synther.errors import ConfigError, DataError

# 64 frames of one colour, 12 pixel rows high: within 4 % of the size that h5py's own choice gives (hundreds
# of frames, 6 x 11 pixels), inflates a third faster, reads one frame in a millisecond instead of twenty.
_CHUNK_FRAMES, _CHUNK_ROWS = 64, 12
_LEVEL = 6


class Episode(NamedTuple):
    """One checked episode of T observations; row 0 is the reset."""

    frames: NDArray[np.uint8]  # (T, 3, H, W)
    action: NDArray[np.float32]  # (T, A)
    reward: NDArray[np.float32]  # (T,)
    discount: NDArray[np.float32]  # (T,)


class Hdf5Writer:
    """Append episodes to one HDF5 file in V-D4RL's 84 px layout.

    A context manager: the file appears under ``path`` when the block ends without an error, and not at all
    otherwise. The same episodes give the same bytes.

    >>> with Hdf5Writer(path) as writer:  # doctest: +SKIP
    ...     writer.append(frames, action, reward, discount)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.num_episodes = 0
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._file: h5py.File | None = None
        self._pending: NDArray[np.uint8] | None = None  # fewer frames than make a chunk
        self._num_written = 0
        self._columns: dict[str, list[NDArray[Any]]] = {}

    def append(self, frames: ArrayLike, action: ArrayLike, reward: ArrayLike, discount: ArrayLike) -> None:
        """Add one episode of T >= 2 observations; raises `DataError` where shapes do not fit.

        Args:
            frames: (T, 3, H, W) uint8, of the same H and W in every episode.
            action: (T, A), the action that led to each observation; zeros in row 0.
            reward: (T,), the reward that came with each observation; 0 in row 0.
            discount: (T,), the environment's discount; 1 in row 0.
        """
        episode = check_episode(frames, action, reward, discount)
        step_type = np.full(len(episode.frames), MID, np.int64)
        step_type[0], step_type[-1] = FIRST, LAST
        columns: dict[str, NDArray[Any]] = {
            "action": episode.action,
            "reward": episode.reward,
            "discount": episode.discount,
            "step_type": step_type,
        }
        self._write_frames(episode.frames)
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        self.num_episodes += 1

    def close(self) -> None:
        """Finish the file and give it its name; without an episode there is no file."""
        if self._file is None:
            return
        if self._pending is not None and len(self._pending):
            self._write_chunks(self._pending)
        for name, parts in self._columns.items():
            self._file.create_dataset(name, data=np.concatenate(parts), compression="gzip")
        self._file.close()
        self._file = None
        os.replace(self._partial, self.path)

    def abort(self) -> None:
        """Drop what was written; ``path`` is left as it was before."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Hdf5Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _write_frames(self, frames: NDArray[np.uint8]) -> None:
        if self._file is None:
            self._create(frames.shape[1:])
        elif frames.shape[1:] != self._file["observation"].shape[1:]:
            raise DataError(
                f"{self.path}: frames of shape {frames.shape[1:]} cannot follow frames of shape "
                f"{self._file['observation'].shape[1:]}: write one image size to a file"
            )
        start = 0
        if self._pending is not None and len(self._pending):
            start = min(_CHUNK_FRAMES - len(self._pending), len(frames))
            self._pending = np.concatenate([self._pending, frames[:start]])
            if len(self._pending) < _CHUNK_FRAMES:
                return
            self._write_chunks(self._pending)
        whole = start + (len(frames) - start) // _CHUNK_FRAMES * _CHUNK_FRAMES
        if whole > start:
            self._write_chunks(frames[start:whole])
        self._pending = frames[whole:].copy()

    def _create(self, shape: tuple[int, ...]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        channels, height, width = shape
        self._file = h5py.File(self._partial, "w")
        self._file.create_dataset(
            "observation",
            shape=(0, channels, height, width),
            maxshape=(None, channels, height, width),
            chunks=(_CHUNK_FRAMES, 1, min(_CHUNK_ROWS, height), width),
            dtype=np.uint8,
            compression="gzip",
            compression_opts=_LEVEL,
        )

    def _write_chunks(self, frames: NDArray[np.uint8]) -> None:
        """Compress with libdeflate, in a third less time than zlib, and store the chunks as they are."""
        assert self._file is not None
        dataset = self._file["observation"]
        start = self._num_written
        self._num_written += len(frames)
        dataset.resize(self._num_written, axis=0)
        for offset in np.ndindex(
            *(-(-size // step) for size, step in zip(frames.shape, dataset.chunks, strict=True))
        ):
            corner = [index * step for index, step in zip(offset, dataset.chunks, strict=True)]
            inside = frames[tuple(slice(c, c + step) for c, step in zip(corner, dataset.chunks, strict=True))]
            chunk = np.zeros(dataset.chunks, np.uint8)  # HDF5 stores edge chunks whole
            chunk[tuple(slice(size) for size in inside.shape)] = inside
            corner[0] += start
            dataset.id.write_direct_chunk(
                tuple(corner), bytes(deflate.zlib_compress(chunk.tobytes(), _LEVEL))
            )


class NpzWriter:
    """Write each episode to an NPZ file of its own, in V-D4RL's 64 px layout (frames as (T, H, W, 3)).

    Files are named ``<prefix><number>-<transitions>.npz``, so that their order is the order of writing.
    """

    def __init__(self, directory: str | os.PathLike[str], prefix: str = "", first: int = 0) -> None:
        self.directory = Path(directory)
        self.prefix = prefix
        self.num_episodes = first

    def append(self, frames: ArrayLike, action: ArrayLike, reward: ArrayLike, discount: ArrayLike) -> Path:
        """Write one episode, given as for `Hdf5Writer.append` (frames (T, 3, H, W)); returns its file."""
        episode = check_episode(frames, action, reward, discount)
        length = len(episode.frames)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{self.prefix}{self.num_episodes:06d}-{length - 1}.npz"
        partial = path.with_name(f".{path.name}.partial")
        rows = np.arange(length)
        try:
            with partial.open("wb") as file:
                np.savez_compressed(
                    file,
                    image=episode.frames.transpose(0, 2, 3, 1),
                    action=episode.action,
                    reward=episode.reward,
                    discount=episode.discount,
                    is_first=rows == 0,
                    is_last=rows == length - 1,
                    is_terminal=episode.discount == 0,
                )
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        self.num_episodes += 1
        return path


def check_episode(frames: ArrayLike, action: ArrayLike, reward: ArrayLike, discount: ArrayLike) -> Episode:
    """The arrays of one episode in the files' dtypes; raises `DataError` where they cannot be an episode."""
    pixels = np.asarray(frames)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise DataError(
            f"frames are {pixels.dtype} of shape {pixels.shape}: give uint8 (T, 3, height, width)"
        )
    episode = Episode(
        pixels,
        np.asarray(action, np.float32),
        np.asarray(reward, np.float32),
        np.asarray(discount, np.float32),
    )
    found = {name: np.shape(array) for name, array in episode._asdict().items()}
    length = len(pixels)
    dims = [len(shape) for shape in found.values()]
    if dims != [4, 2, 1, 1] or {shape[0] for shape in found.values()} != {length} or length < 2:
        raise DataError(
            f"an episode needs arrays of one length T >= 2 and action (T, A), it has {found}: cut them alike"
        )
    return episode


def require_absent(target: Path) -> None:
    """Raise `ConfigError` where ``target`` is there already: nothing is written over."""
    if target.exists():
        raise ConfigError(f"{target} exists: give another destination, or move it away")


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that becomes it when the block ends, and goes where the block fails."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
