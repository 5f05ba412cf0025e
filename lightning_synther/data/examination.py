"""Read V-D4RL files of any condition: what is in them, and all that is wrong with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lightning_synther.data import faults, hdf5, npz
from lightning_synther.data.recording import FIRST, LAST, MID
from lightning_synther.errors import DataError

COLUMNS = ("action", "reward", "discount")
_BLOCK = 512  # frames inflated at a time


@dataclass
class Examined:
    """One file: the episodes that are whole, and the faults.

    Attributes:
        keys: the arrays that it has.
        frame_shape: (3, H, W); empty where there are none.
        lengths: observations of every whole episode.
        returns: sums of their rewards.
        digests: of their actions and rewards: equal for an episode that is there twice.
        starts: row of the file in which each begins.
        action_range: (smallest, largest, dimension); None without actions.
    """

    path: Path
    keys: list[str] = field(default_factory=list)
    frame_shape: tuple[int, ...] = ()
    num_rows: int = 0
    lengths: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    action_range: tuple[float, float, int] | None = None
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def examine(path: Path, frames: bool, progress: Callable[[int], object] = lambda _: None) -> Examined:
    """Look at the HDF5 or NPZ file ``path``; with ``frames`` at every pixel too, in bounded memory."""
    found = Examined(path)
    try:
        if path.suffix == ".hdf5":
            _examine_hdf5(found, frames, progress)
        else:
            _examine_npz(found, frames, progress)
    except DataError as error:
        found.faults.append(str(error).removeprefix(f"{path}").removeprefix(":").strip())
    return found


def read_frame(path: Path, row: int) -> NDArray[np.uint8]:
    """Frame ``row`` of a file, (H, W, 3)."""
    if path.suffix == ".hdf5":
        with hdf5.opened(path) as file:
            return np.moveaxis(file["observation"][row], 0, -1)
    with npz.opened(path) as archive:
        return archive["image"][row]


def _examine_hdf5(found: Examined, frames: bool, progress: Callable[[int], object]) -> None:
    with hdf5.opened(found.path) as file:
        found.keys = sorted(file)
        if not _has(found, ("observation", *COLUMNS, "step_type")):
            return
        pixels = file["observation"]
        columns = {key: file[key][()] for key in COLUMNS}
        _keep(found, pixels, pixels.shape, columns, file["step_type"][()].reshape(-1))
        if frames and found.frame_shape:
            step = pixels.chunks[0] if pixels.chunks else 1
            _look_at(found, _hdf5_blocks(found.path, pixels, step * max(1, _BLOCK // step)), progress)


def _hdf5_blocks(path: Path, pixels: h5py.Dataset, size: int) -> Iterator[NDArray[np.uint8]]:
    buffer = np.empty((min(size, len(pixels)), *pixels.shape[1:]), np.uint8)
    for start in range(0, len(pixels), size):
        block = buffer[: min(size, len(pixels) - start)]
        hdf5.read_frames(path, start, start + len(block), block)
        yield block


def _examine_npz(found: Examined, frames: bool, progress: Callable[[int], object]) -> None:
    with npz.opened(found.path) as file:
        found.keys = sorted(file.files)
        if not _has(found, ("image", *COLUMNS)):
            return
        columns = {key: file[key] for key in COLUMNS}
        images = file["image"]
        shape = tuple(images.shape[i] for i in (0, 3, 1, 2)) if images.ndim == 4 else images.shape
        step_type = np.full(len(columns["reward"]), MID)
        step_type[:1], step_type[1:][-1:] = FIRST, LAST
        _keep(found, images, shape, columns, step_type)
        marked = {key: file[key] for key in ("is_first", "is_last") if key in file}
    count = re.search(r"-(\d+)\.npz$", found.path.name)
    if count and found.num_rows - 1 != int(count[1]):
        found.faults.append(
            f"has {found.num_rows - 1} transitions, its name says {count[1]} (V-D4RL's loader counts by the name)"
        )
    _check_marks(found, marked, step_type)
    if frames and found.frame_shape:
        _look_at(found, iter([images]), progress)


def _check_marks(found: Examined, marked: dict[str, NDArray[Any]], step_type: NDArray[Any]) -> None:
    for key, kind in (("is_first", FIRST), ("is_last", LAST)):
        if key in marked and not np.array_equal(
            np.flatnonzero(marked[key]), np.flatnonzero(step_type == kind)
        ):
            where = "row 0" if kind == FIRST else "the last row"
            found.faults.append(f"{key} does not mark {where} and no other")


def _has(found: Examined, wanted: tuple[str, ...]) -> bool:
    if missing := [key for key in wanted if key not in found.keys]:
        found.faults.append(f"lacks {', '.join(missing)} (it has {', '.join(found.keys) or 'nothing'})")
    return not missing


def _keep(
    found: Examined,
    pixels: h5py.Dataset | NDArray[Any],
    shape: tuple[int, ...],
    columns: dict[str, NDArray[Any]],
    step_type: NDArray[Any],
) -> None:
    """Check everything but the pixels, and take the whole episodes' figures."""
    if pixels.dtype == np.uint8 and len(shape) == 4 and shape[1] == 3:
        found.frame_shape = shape[1:]
    else:
        found.faults.append(f"frames are {pixels.dtype} of shape {tuple(pixels.shape)}, not uint8 RGB")
    sizes = {"frames": shape[0]} | {key: len(values) for key, values in columns.items()}
    found.faults += faults.length_faults(sizes | {"step_type": len(step_type)})
    found.num_rows = rows = min(*sizes.values(), len(step_type))
    columns, step_type = {key: values[:rows] for key, values in columns.items()}, step_type[:rows]
    resets = step_type == FIRST
    found.faults += faults.step_type_faults(step_type)
    found.faults += faults.value_faults(columns, resets)
    found.faults += faults.early_ends(columns["discount"], step_type)
    found.notes += faults.reset_notes(columns, resets)
    action, reward = columns["action"].reshape(rows, -1), columns["reward"].reshape(-1)
    inside = action[~resets]
    if len(finite := inside[np.isfinite(inside)]):
        found.action_range = (float(finite.min()), float(finite.max()), inside.shape[1])
    for episode in faults.whole_episodes(step_type):
        led_to = slice(episode.start + 1, episode.stop)
        found.starts.append(episode.start)
        found.lengths.append(episode.stop - episode.start)
        found.returns.append(float(reward[led_to].sum(dtype=np.float64)))
        content = (np.ascontiguousarray(column[led_to], np.float32).tobytes() for column in (action, reward))
        found.digests.append(hashlib.blake2b(b"".join(content), digest_size=16).hexdigest())


def _look_at(found: Examined, blocks: Iterator[NDArray[np.uint8]], progress: Callable[[int], object]) -> None:
    """Inflate all frames: damage shows, and so do frames that were never rendered."""
    blank: list[int] = []
    start = 0
    for block in blocks:
        flat = block.reshape(len(block), -1)
        blank += (start + np.flatnonzero(flat.max(axis=1) == flat.min(axis=1))).tolist()
        start += len(block)
        progress(len(block))
    if blank:
        found.faults.append(f"{len(blank)} frames are of one colour only (row {blank[0]})")
