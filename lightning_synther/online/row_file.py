"""A file of rows of one size that a process writes and reads while it trains, and that outlives it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_synther.data.disk import full_disk_is_one_sentence


class RowFile:
    """``num_rows`` rows of ``shape`` and ``dtype``; ``rows`` are they, mapped.

    Rows are written with `os.pwrite`, so that a full disk is an error and not SIGBUS, and read through a map
    of the same pages. The file is sparse: what was not written yet takes no room on the disk. An existing
    file is kept as it is, and made longer where it is shorter.
    """

    def __init__(self, path: Path, num_rows: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.path = path
        self._row_bytes = dtype.itemsize * int(np.prod(shape))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        size = num_rows * self._row_bytes
        os.ftruncate(self._file, max(size, os.fstat(self._file).st_size))
        self.rows: Tensor = torch.frombuffer(mmap.mmap(self._file, size), dtype=dtype).view(num_rows, *shape)

    def write(self, first: int, rows: Tensor) -> None:
        """Put ``rows`` (n, *shape) at row ``first`` and after; `BackendError` on a full disk."""
        if not len(rows):
            return
        data = memoryview(rows.contiguous().numpy().data).cast("B")
        offset = first * self._row_bytes
        with full_disk_is_one_sentence(self.path, "free some and run the same command again"):
            while data:
                written = os.pwrite(self._file, data, offset)
                data, offset = data[written:], offset + written

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        os.fsync(self._file)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)
