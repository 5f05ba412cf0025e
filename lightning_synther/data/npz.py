"""Read V-D4RL's NPZ files (64 px): one episode each, frames (T, H, W, 3)."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from lightning_synther.data.recording import (
    FIRST,
    LAST,
    MID,
    FrameBlock,
    Recording,
    make_recording,
    require_frames,
    require_keys,
)
from lightning_synther.errors import DataError

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError)  # the last: an unknown compression
_KEYS = ("image", "action", "reward", "discount")


def read_npz(path: Path, image_size: int) -> Recording:
    """Read everything but the frames of ``path``; raises `DataError` for a damaged or foreign file."""
    with opened(path) as file:
        require_keys(path, file, _KEYS)
        columns = {key: file[key] for key in _KEYS[1:]}
        num_rows = len(columns["reward"])
        step_type = np.full(num_rows, MID)
        step_type[:1], step_type[1:][-1:] = FIRST, LAST
        block = FrameBlock(num_rows, partial(read_frames, path, image_size))
        return make_recording(path, columns, step_type, [block])


def read_frames(path: Path, image_size: int, out: NDArray[np.uint8]) -> None:
    """Fill ``out`` (T, 3, H, W) with the frames of ``path``."""
    with opened(path) as file:
        frames = file["image"]
    shape = tuple(frames.shape[i] for i in (0, 3, 1, 2)) if frames.ndim == 4 else frames.shape
    require_frames(path, "image", frames.dtype, shape, image_size)
    if len(frames) != len(out):
        raise DataError(
            f"{path} has arrays of unequal length: {len(frames)} frames, {len(out)} rewards: "
            "it is damaged, get or make it again"
        )
    out[:] = np.moveaxis(frames, -1, 1)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[NpzFile]:
    """Open ``path`` and turn what a damaged file raises into a `DataError`; never load pickled objects."""
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except DataError:
        raise
    except (OSError, ValueError, EOFError, LookupError, AttributeError, TypeError, *_ZIP_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read as NPZ ({reason}): it is cut off, damaged, or holds pickled objects, "
            "which are never loaded; get or make it again"
        ) from error
