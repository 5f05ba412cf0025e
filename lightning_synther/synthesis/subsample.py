"""Which rows a measure reads: all that are asked for, or a part that a seed chooses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import DataError
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import TransitionSpec

Rows = Tensor | NDArray[np.float32]
#: Rows looked at in one go: they and what is made of them stay in the processor's cache.
BLOCK_ROWS = 8_192


def subsample(rows: Rows, count: int, spec: TransitionSpec, seed: int) -> Tensor:
    """``count`` of the rows (N, D), float32, without repetition, in their order.

    All of them are not copied, so a memory map stays on disk: nobody may write to the result. Raises `DataError`
    for rows of another spec, with values that are not finite, or fewer than two.
    """
    if rows.ndim != 2 or rows.shape[1] != spec.dim or count < 2:
        raise DataError(
            f"fidelity needs two or more rows of {spec.dim} numbers, "
            f"got an array of shape {tuple(rows.shape)}"
        )
    if count < len(rows):
        rows = rows[_choice(len(rows), count, seed, "fidelity")]
    elif isinstance(rows, np.ndarray) and not rows.flags.writeable:
        rows = rows.copy()  # torch has no read-only tensors
    part = torch.as_tensor(rows, dtype=torch.float32)
    if not all(_finite(block) for block in part.split(BLOCK_ROWS)):
        raise DataError(
            "fidelity cannot be judged on rows with values that are not finite: write the store again"
        )
    return part


def thin(rows: Tensor, count: int, seed: int) -> Tensor:
    """At most ``count`` of the rows (N, D), chosen by ``seed``, in their order.

    Not evenly spaced ones: episodes of equal length would show the same moment of each.
    """
    if len(rows) <= count:
        return rows
    return rows[torch.from_numpy(_choice(len(rows), count, seed, "thin"))]


def _choice(population: int, count: int, seed: int, purpose: str) -> NDArray[np.int64]:
    generator = np.random.default_rng(derive_seed(seed, purpose, population, count))
    return np.sort(generator.choice(population, count, replace=False, shuffle=False))


def _finite(block: Tensor) -> bool:
    """Sums tell in most cases, and are 20 times as fast; those of large finite values may overflow."""
    return bool(block.sum().isfinite()) or bool(block.isfinite().all())


@dataclass(frozen=True)
class Units:
    """Puts rows (N, D) into units of the training rows: centred, one standard deviation each.

    Constant columns are only centred.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, statistics: ColumnStatistics) -> Units:
        """Those of data with these ``statistics``."""
        return cls(torch.from_numpy(statistics.mean).float(), unit(statistics.std).float())

    def __call__(self, rows: Tensor) -> Tensor:
        """A new tensor; ``rows`` stay as they are."""
        return rows.sub(self.mean).div_(self.std)


def unit(std: NDArray[np.float64]) -> Tensor:
    """The unit (D,) of each column: its standard deviation, 1 for a constant column."""
    return torch.from_numpy(np.where(std > 0, std, 1.0))
