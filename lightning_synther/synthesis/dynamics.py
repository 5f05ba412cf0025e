"""A one-step predictor fitted to real rows: does a synthetic reward and next observation follow from s and a?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis.subsample import BLOCK_ROWS, thin
from lightning_synther.transition import TransitionSpec

NUM_FEATURES = 512
#: Rows that the predictor is fitted to, and rows it judges; random subsamples of what is given.
MAX_ROWS = 50_000


class Dynamics:
    """Ridge regression from random ReLU features of (observation, action) to reward and next observation.

    Args:
        rows: standardised rows (n, D), of which at most `MAX_ROWS` are fitted.
        spec: their layout.
        seed: of the features and of the subsamples.
    """

    def __init__(self, rows: Tensor, spec: TransitionSpec, seed: int = 0, ridge: float = 1e-3) -> None:
        self.num_inputs = spec.fields["action"].stop
        self.targets = slice(self.num_inputs, spec.fields["next_observation"].stop)
        generator = torch.Generator().manual_seed(derive_seed(seed, "random features"))
        weight = torch.randn(self.num_inputs + 1, NUM_FEATURES, generator=generator)
        self.weight = weight / self.num_inputs**0.5
        self.seed = seed
        rows = thin(rows, MAX_ROWS, seed)
        gram = ridge * len(rows) * torch.eye(self.num_inputs + 1 + NUM_FEATURES, dtype=torch.float64)
        product = torch.zeros(len(gram), self.targets.stop - self.targets.start, dtype=torch.float64)
        for features, targets in self._blocks(rows):
            gram += features.T @ features
            product += features.T @ targets
        self.solution = torch.linalg.solve(gram, product)

    def features(self, rows: Tensor) -> Tensor:
        """The inputs themselves, their random ReLU features, and 1: (n, inputs + features + 1)."""
        inputs = torch.cat([rows[:, : self.num_inputs], torch.ones(len(rows), 1)], dim=1)
        return torch.cat([inputs, (inputs @ self.weight).relu()], dim=1).double()

    def errors(self, rows: Tensor) -> tuple[float, float]:
        """Root mean squared error of ``rows`` (n, D), standardised alike.

        Over reward and next observation together, and over the reward alone.
        """
        rows = thin(rows, MAX_ROWS, self.seed)
        squares = torch.zeros(self.targets.stop - self.targets.start, dtype=torch.float64)
        for features, targets in self._blocks(rows):
            squares += (targets - features @ self.solution).square().sum(0)
        means = squares / len(rows)
        return means.mean().sqrt().item(), means[0].sqrt().item()

    def error(self, rows: Tensor) -> float:
        """The first of `errors`."""
        return self.errors(rows)[0]

    def _blocks(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for block in rows.split(BLOCK_ROWS):
            yield self.features(block), block[:, self.targets].double()
