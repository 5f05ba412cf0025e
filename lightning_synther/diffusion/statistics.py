"""Column statistics of data that need not fit in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.errors import DataError

_CHUNK_VALUES = 2**17  # values held in float64 at once: 1 MiB, which stays in the processor's cache


@dataclass(frozen=True)
class ColumnStatistics:
    """Count, mean, unbiased standard deviation and extremes of every column, float64 (D,)."""

    count: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.floating] | Tensor) -> ColumnStatistics:
        """Statistics of ``rows`` (N, D), read in chunks (a memory map stays on disk).

        Chunks are merged by Chan, Golub and LeVeque's update (1983), which does not cancel. Raises
        `DataError` for values that are not finite.
        """
        count, dim = 0, rows.shape[1]
        mean, squares = np.zeros(dim), np.zeros(dim)
        low, high = np.full(dim, np.inf), np.full(dim, -np.inf)
        step = max(1, _CHUNK_VALUES // dim)
        for start in range(0, len(rows), step):
            part = np.asarray(rows[start : start + step])
            least, greatest = part.min(axis=0), part.max(axis=0)
            if not (np.isfinite(least).all() and np.isfinite(greatest).all()):  # not a number spreads
                _refuse(part, start)
            low, high = np.minimum(low, least), np.maximum(high, greatest)
            chunk = part.astype(np.float64)
            chunk_mean = chunk.mean(axis=0)
            chunk -= chunk_mean
            delta, total = chunk_mean - mean, count + len(chunk)
            squares += np.einsum("nd,nd->d", chunk, chunk) + delta**2 * count * len(chunk) / total
            mean += delta * len(chunk) / total
            count = total
        std = np.sqrt(squares / max(1, count - 1))
        constant = low == high  # exact, whatever the rounding of the sums
        return cls(count, np.where(constant, low, mean), np.where(constant, 0.0, std), low, high)


def _refuse(chunk: NDArray[np.floating], start: int) -> NoReturn:
    row, column = np.argwhere(~np.isfinite(chunk))[0]
    raise DataError(
        f"row {start + row}, column {column} of the data is {chunk[row, column]}: every value must be "
        "finite, so remove such records or rebuild the store"
    )
