"""Are synthetic records new, copied, or off the data? Distances to the closest training record say so.

Each distance stands beside that of held-out records, which are new and right: closer than nearly all of them is
memorised, farther than nearly all of them is unsupported.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_synther.synthesis.subsample import thin

#: Records whose neighbours are searched, and training records among which; random subsamples of what is given.
NUM_QUERIES, NUM_CANDIDATES = 1_000, 200_000
#: Share of held-out records on either side of the range of distances that counts as usual.
TAIL = 0.01
_BLOCK_VALUES = 1 << 22  # distances held at once: 16 MiB, which malloc gives again without new pages


def nearest_distances(queries: Tensor, candidates: Tensor) -> Tensor:
    """Distance (Q,) from each of ``queries`` (Q, D) to the closest of ``candidates`` (N, D).

    The root of the mean (not the sum) of squares over columns: 1 is one unit in every column. 0 for a copy.

    >>> nearest_distances(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([0.])
    """
    return (queries - candidates[nearest_index(queries, candidates)]).square().mean(1).sqrt()


def nearest_index(queries: Tensor, candidates: Tensor) -> Tensor:
    """Index (Q,) of the closest of ``candidates`` (N, D) to each of ``queries`` (Q, D), in bounded memory."""
    half_norms = candidates.square().sum(1) / 2
    best = torch.full((len(queries),), -torch.inf)
    index = torch.zeros(len(queries), dtype=torch.int64)
    step = max(1, _BLOCK_VALUES // len(queries))
    for start in range(0, len(candidates), step):  # |q - c|^2 is least where q . c - |c|^2 / 2 is greatest
        block = torch.addmm(
            -half_norms[None, start : start + step], queries, candidates[start : start + step].T
        )
        at = torch.from_numpy(block.numpy().argmax(1))  # torch's takes twice as long
        value = block.gather(1, at[:, None])[:, 0]
        better = value > best
        best[better], index[better] = value[better], at[better] + start
    return index


@dataclass(frozen=True)
class Novelty:
    """Distances to the closest training record of synthetic and of held-out records, (Q,) and (R,)."""

    synthetic: Tensor
    heldout: Tensor

    @classmethod
    def of(cls, train: Tensor, synthetic: Tensor, heldout: Tensor, seed: int = 0) -> Novelty:
        """From standardised rows (N, D); subsamples of `NUM_QUERIES` and `NUM_CANDIDATES` of them by ``seed``."""
        candidates = thin(train, NUM_CANDIDATES, seed)
        queries = (thin(rows, NUM_QUERIES, seed) for rows in (synthetic, heldout))
        return cls(*(nearest_distances(rows, candidates) for rows in queries))

    def scores(self) -> dict[str, float]:
        """Medians of the distances, and the shares of synthetic records outside the held-out ones' range.

        ``nearest`` and ``nearest_floor``: the medians; equal for a perfect generator, much lower for one that
        copies. ``memorised``: share closer than all but `TAIL` of the held-out records. ``unsupported``: share
        farther than all but `TAIL` of them. Both are `TAIL` for a perfect generator.
        """
        edges = torch.quantile(self.heldout.double(), torch.tensor([TAIL, 1 - TAIL], dtype=torch.float64))
        low, high = edges.to(self.synthetic.dtype)
        return {
            "nearest": self.synthetic.median().item(),
            "nearest_floor": self.heldout.median().item(),
            "memorised": (self.synthetic < low).float().mean().item(),
            "memorised_floor": TAIL,
            "unsupported": (self.synthetic > high).float().mean().item(),
            "unsupported_floor": TAIL,
        }
