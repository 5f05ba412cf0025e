"""The range of the training data, column by column: which records leave it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.synthesis.subsample import BLOCK_ROWS
from lightning_synther.transition import TransitionSpec

#: Samples scatter around saturated values (actions at 1, latents of a tanh), so the range is widened a little.
MARGIN = 0.1


@dataclass(frozen=True)
class Support:
    """Smallest and largest value (D,) of every column; infinite where any value will do.

    The terminal column will: it counts as 0 or 1 by a threshold, whatever its value.
    """

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, statistics: ColumnStatistics, spec: TransitionSpec, margin: float = MARGIN) -> Support:
        """The extremes of the data, widened by ``margin`` standard deviations of each column."""
        reach = torch.from_numpy(statistics.std) * margin
        low, high = torch.from_numpy(statistics.min) - reach, torch.from_numpy(statistics.max) + reach
        if spec.terminal:
            low[spec.fields["terminal"]], high[spec.fields["terminal"]] = -torch.inf, torch.inf
        return cls(low.float(), high.float())

    def contains(self, rows: Tensor) -> Tensor:
        """(N,) whether all columns of the rows (N, D) lie within; False where one is not a number."""
        return ((rows >= self.low) & (rows <= self.high)).all(1)


def support_scores(
    support: Support, synthetic: Tensor, heldout: Tensor, spec: TransitionSpec
) -> dict[str, float]:
    """Shares of records that leave the training data's range, and of those with an action beyond [-1, 1]."""
    scores = {}
    for suffix, rows in (("", synthetic), ("_floor", heldout)):
        outside = beyond = 0
        for block in rows.split(BLOCK_ROWS):
            outside += int((~support.contains(block)).sum())
            beyond += int((block[:, spec.fields["action"]].abs() > 1 + 1e-6).any(1).sum())
        scores[f"out_of_range{suffix}"] = outside / len(rows)
        scores[f"action_beyond_1{suffix}"] = beyond / len(rows)
    return scores
