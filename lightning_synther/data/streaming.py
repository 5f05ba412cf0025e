"""The episodes of V-D4RL files one after another, in the memory of one: for converting, not for training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from lightning_synther.data.examination import examine
from lightning_synther.data.hdf5 import opened, read_hdf5
from lightning_synther.data.npz import read_npz
from lightning_synther.data.vd4rl import list_files
from lightning_synther.data.writers import Episode
from lightning_synther.errors import DataError


def data_files(path: Path) -> list[Path]:
    """The files of a dataset folder, or ``path`` itself where it is one."""
    return [path] if path.is_file() else list_files(path)


def frame_size(path: Path) -> int:
    """Height and width in pixels of the frames of one file; `DataError` where it has none."""
    found = examine(path, frames=False)
    if not found.frame_shape:
        fault = found.faults[0] if found.faults else "it has no frames"
        raise DataError(f"{path} cannot be converted: {fault}")
    return found.frame_shape[-1]


def stream_episodes(path: Path) -> Iterator[Episode]:
    """Every episode of a folder or a file, checked as `load_vd4rl` checks; frames (T, 3, H, W)."""
    for file in data_files(path):
        size = frame_size(file)
        recording = (read_hdf5 if file.suffix == ".hdf5" else read_npz)(file, size)
        stops = np.cumsum(recording.lengths)
        for start, stop in zip((stops - recording.lengths).tolist(), stops.tolist(), strict=True):
            frames = np.empty((stop - start, 3, size, size), np.uint8)
            if file.suffix == ".hdf5":
                with opened(file) as content:
                    _read(content["observation"], start, frames)
            else:
                recording.blocks[0].read(frames)
            rows = slice(start, stop)
            yield Episode(frames, recording.action[rows], recording.reward[rows], recording.discount[rows])


def _read(pixels: h5py.Dataset, start: int, out: np.ndarray) -> None:
    pixels.read_direct(out, np.s_[start : start + len(out)])
