"""Read V-D4RL's HDF5 files (84 px): many episodes end to end, frames (N, 3, H, W) compressed in chunks.

Inflating is what loading costs. h5py inflates with zlib under a lock; here chunks are fetched as they lie in
the file and inflated by libdeflate, twice as fast and in several threads.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import deflate
import h5py
import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.recording import (
    FrameBlock,
    Recording,
    make_recording,
    require_frames,
    require_keys,
)
from lightning_synther.errors import DataError

_KEYS = ("observation", "action", "reward", "discount", "step_type")
_BLOCK_ROWS = 512  # at least; a block is whole chunks


def read_hdf5(path: Path, image_size: int) -> Recording:
    """Read everything but the frames of ``path``; raises `DataError` for a damaged or foreign file."""
    with opened(path) as file:
        require_keys(path, file, _KEYS)
        frames = file["observation"]
        require_frames(path, "observation", frames.dtype, frames.shape, image_size)
        step = frames.chunks[0] if frames.chunks else 1
        step *= max(1, _BLOCK_ROWS // step)
        blocks = []
        for start in range(0, len(frames), step):
            stop = min(start + step, len(frames))
            blocks.append(FrameBlock(stop - start, partial(read_frames, path, start, stop)))
        columns = {key: file[key][()] for key in _KEYS[1:]}
        return make_recording(path, columns, columns.pop("step_type").reshape(-1), blocks)


def read_frames(path: Path, start: int, stop: int, out: NDArray[np.uint8]) -> None:
    """Fill ``out`` (stop - start, 3, H, W) with frames of ``path``; ``start`` is the first row of a chunk."""
    with opened(path) as file:
        dataset = file["observation"]
        if _is_plain_gzip(dataset):
            _inflate_rows(dataset, start, stop, out)
        else:
            out[:] = dataset[start:stop]


def _is_plain_gzip(dataset: h5py.Dataset) -> bool:
    filters = dataset.id.get_create_plist()
    only_gzip = filters.get_nfilters() == 1 and filters.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE
    return bool(dataset.chunks and only_gzip)


def _inflate_rows(dataset: h5py.Dataset, start: int, stop: int, out: NDArray[np.uint8]) -> None:
    """Inflate every chunk of the rows.

    h5py's own chunks are narrow (11 or so pixels of a row), so that copying them costs as much as inflating
    them. Those side by side are first joined in a strip that fits the cache, each row of a chunk being moved
    as one item.
    """
    depth, channels, height, width = dataset.chunks
    size = depth * channels * height * width
    per_row = -(-out.shape[3] // width)
    strip = np.empty((depth, channels, height, per_row, width), np.uint8)
    cells = strip.view(f"V{width}")[..., 0]
    rows = strip.reshape(depth, channels, height, per_row * width)
    corners = itertools.product(
        range(start, stop, depth), range(0, out.shape[1], channels), range(0, out.shape[2], height)
    )
    for t, c, y in corners:
        for i in range(per_row):
            mask, raw = dataset.id.read_direct_chunk((t, c, y, i * width))
            plain = raw if mask else deflate.zlib_decompress(raw, size)  # masked: the filter was not applied
            chunk = np.frombuffer(plain, f"V{width}").reshape(cells.shape[:3])
            cells[:, :, :, i] = chunk
        target = out[t - start : t - start + depth, c : c + channels, y : y + height]
        target[:] = rows[tuple(slice(extent) for extent in target.shape)]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open ``path`` and turn what a damaged file raises into a `DataError`."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except (
        OSError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        deflate.DeflateError,
    ) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read as HDF5 ({reason}): it is cut off or damaged, get or make it again"
        ) from error
