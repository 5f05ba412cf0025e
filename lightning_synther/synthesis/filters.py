"""Leave out synthetic transitions that no data could be like, and count them.

The rule: a chunk is sampled whole; what does not pass is dropped, and the place of what was dropped is filled from
further rounds, round k from a seed derived from the chunk's own and k, in order, until the chunk is full. A chunk is
thus still a function of its seed, the model and the filters alone: the same for any number of ranks and after an
interruption, and a store holds as many rows as it was asked for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_synther.errors import DataError
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis.support import Support

MAX_ROUNDS = 50
#: Counters of a filtered store: rows sampled, and rows dropped for each reason.
COUNTERS = ("sampled", "non_finite", "out_of_range")

Sample = Callable[[int, int], Tensor]  # number of rows, seed -> rows


@dataclass(frozen=True)
class Filters:
    """What a row has to pass: finite numbers, and a range where one is given."""

    support: Support | None = None

    def passes(self, rows: Tensor) -> tuple[Tensor, list[int]]:
        """(N,) which of the rows (N, D) pass; rows, rows that are not finite, and others out of range."""
        finite = rows.isfinite().all(1)
        within = finite if self.support is None else finite & self.support.contains(rows)
        return within, [len(rows), int((~finite).sum()), int((finite & ~within).sum())]

    @property
    def fingerprint(self) -> str:
        """Hash of the ranges."""
        digest = hashlib.blake2b(digest_size=8)
        for bound in (self.support.low, self.support.high) if self.support is not None else ():
            digest.update(bound.numpy().tobytes())
        return f"filtered-{digest.hexdigest()}"

    def fill(self, first: Tensor, seed: int, sample: Sample) -> tuple[Tensor, list[int]]:
        """As many rows as ``first`` (n, D), all of which pass, and `COUNTERS`.

        ``first`` are the rows sampled from ``seed``. Raises `DataError` where the rows that pass are too few to
        get there in `MAX_ROUNDS` rounds of at most n rows.
        """
        kept, counts = [], [0] * len(COUNTERS)
        missing, rows = len(first), first
        for round_ in range(1, MAX_ROUNDS + 1):
            passed, found = self.passes(rows)
            counts = [a + b for a, b in zip(counts, found, strict=True)]
            kept.append(rows[passed][:missing])
            missing -= len(kept[-1])
            if not missing:
                return torch.cat(kept), counts
            rate = max(1, len(first) - missing) / counts[0]
            num = min(
                len(first), math.ceil(1.2 * missing / rate) + 8
            )  # so that one more round mostly suffices
            rows = sample(num, derive_seed(seed, "refill", round_))
        raise DataError(
            f"of {counts[0]} synthetic rows {counts[1]} were not finite and {counts[2]} outside the data's range, too "
            f"many to fill a chunk of {len(first)}: train the diffusion model longer, or raise "
            "synthesis.support_margin"
        )
