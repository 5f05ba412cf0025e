"""Columns one by one: the two-sample Kolmogorov-Smirnov statistic of a million rows in seconds, exact.

A column of each sample is sorted once, whatever the number of comparisons. Then most values need not be looked up
in the other sample: between two values that were, the distribution functions cannot differ by more than their ends
allow, and where that is less than the largest difference found nothing has to be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.float32]
_BLOCK_COLUMNS, _BLOCK_ROWS = 16, 2_048
_STRIDE = 32  # of a hundred thousand to a million values, the fastest within 16 ... 64


def ks_statistic(first: Tensor, second: Tensor) -> Tensor:
    """Two-sample Kolmogorov-Smirnov statistic (D,) of the columns of (n, D) and (m, D), exact.

    The largest distance of the two empirical distribution functions, sup_x |F(x) - G(x)|.
    """
    return ks_statistics((first, second), ((0, 1),))[0]


def ks_statistics(samples: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> Tensor:
    """`ks_statistic` (pairs, D) of the ``pairs`` of ``samples`` (n_i, D), given by their numbers.

    A sample that stands in several pairs is sorted once. Memory: 16 columns of each sample.
    """
    dim = samples[0].shape[1]
    statistics = torch.empty(len(pairs), dim, dtype=torch.float64)
    buffers = [np.empty((min(dim, _BLOCK_COLUMNS), len(rows)), np.float32) for rows in samples]
    for start in range(0, dim, _BLOCK_COLUMNS):
        # In numpy, whose sort of floats is 17 times as fast as torch's on a CPU with AVX-512; a few columns at a
        # time, as they lie next to each other in memory.
        columns = range(start, min(start + _BLOCK_COLUMNS, dim))
        for rows, buffer in zip(samples, buffers, strict=True):
            part = _gather(rows.numpy(), columns, buffer)
            part.sort(axis=1)
        for k, column in enumerate(columns):
            for pair, (one, other) in enumerate(pairs):
                statistics[pair, column] = _sorted_statistic(buffers[one][k], buffers[other][k])
    return statistics


def _gather(rows: Values, columns: range, buffer: Values) -> Values:
    """``columns`` of the rows (n, D) one after another in ``buffer``: (columns, n)."""
    part = buffer[: len(columns)]
    # A few rows at a time: in one go every number would come from, or go to, another page (4 times as long).
    for start in range(0, len(rows), _BLOCK_ROWS):
        end = start + _BLOCK_ROWS
        part[:, start:end] = rows[start:end, columns.start : columns.stop].T
    return part


def _sorted_statistic(first: Values, second: Values) -> float:
    """sup |F - G| of two sorted samples; it is reached at, or just before, a value of the smaller one.

    At the i-th value x_i of n, F rises from i / n to (i + 1) / n (or, with ties, somewhere within the true jump,
    whose ends then belong to other values of the tie).
    """
    small, large = (first, second) if len(first) <= len(second) else (second, first)
    n, m = len(small), len(large)
    ranks = np.append(np.arange(0, n, _STRIDE), n - 1)
    before, upto = _counts(small, large, ranks)
    largest = max(((ranks + 1) / n - upto / m).max(), (before / m - ranks / n).max())
    # Of the ranks between two of these: (rank + 1) / n of the later, but counts of the earlier, or the reverse.
    above, below = (ranks[1:] + 1) / n - upto[:-1] / m, before[1:] / m - ranks[:-1] / n
    undecided = ranks[:-1][np.maximum(above, below) > largest]
    if len(undecided):
        inner = (undecided[:, None] + np.arange(1, _STRIDE)).ravel()
        inner = inner[inner < n]
        before, upto = _counts(small, large, inner)
        if len(inner):
            largest = max(largest, ((inner + 1) / n - upto / m).max(), (before / m - inner / n).max())
    return float(largest)


def _counts(
    small: Values, large: Values, ranks: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many values of ``large`` lie below, and how many not above, those of ``small`` at ``ranks``."""
    values = small[ranks]
    return large.searchsorted(values, side="left"), large.searchsorted(values, side="right")
