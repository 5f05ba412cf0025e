"""What a conditional model needs beside its network: scaled conditions, their absence, and prompts.

The network sees ``[condition * present, present]``: standardised numbers, and a flag that tells "no condition"
from "an average one". Training hides the condition of a share of the rows, so that one network also knows the
unconditional distribution (classifier-free guidance, Ho and Salimans 2022, arXiv 2207.12598).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import ConfigError, DataError

PromptKind = Literal["data", "top", "values"]
BANK_SIZE = 4096
"""Conditions of training rows that a checkpoint keeps, to sample from without the dataset."""


@dataclass(frozen=True)
class Prompt:
    """Where the conditions of sampled rows come from.

    Args:
        kind: ``data``: those of random training rows; ``top``: only of the ``fraction`` of them with the
            largest first condition, as in Prioritized Generative Replay (Wang et al. 2024, arXiv
            2410.18082); ``values``: the same ``values`` for every row.
        fraction: share of ``top``.
        values: conditions in data units, in their order.
    """

    kind: PromptKind = "data"
    fraction: float = 0.25
    values: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(PromptKind):
            raise ConfigError(
                f"prompt {self.kind!r} is unknown: choose from {', '.join(get_args(PromptKind))}"
            )
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"prompt_fraction is {self.fraction}: give a share above 0, up to 1")
        if bool(self.values) != (self.kind == "values"):
            raise ConfigError(
                f"prompt is {self.kind!r} and prompt_values {list(self.values)}: "
                "give values with the prompt 'values', and only there"
            )


class Conditioner(nn.Module):
    """Scale of the conditions, and a bank of them; all buffers, hence part of every checkpoint.

    Args:
        sizes: numbers of each condition by its name, in the order of the condition vector.
    """

    mean: Tensor
    std: Tensor
    bank: Tensor

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        self.dim = sum(self.sizes.values())
        keep = self.dim > 0  # checkpoints of unconditional models hold none of it
        self.register_buffer("mean", torch.zeros(self.dim), persistent=keep)
        self.register_buffer("std", torch.ones(self.dim), persistent=keep)
        self.register_buffer("bank", torch.zeros(BANK_SIZE if keep else 0, self.dim), persistent=keep)

    @property
    def input_dim(self) -> int:
        """Numbers that the network gets: the conditions and the flag; 0 for an unconditional model."""
        return self.dim + 1 if self.dim else 0

    def check_one_for_each(self, num_rows: int, conditions: NDArray[np.floating] | Tensor | None) -> None:
        """Raise `DataError` where ``conditions`` (N, C) are given to an unconditional model, missing, or not N."""
        if (conditions is not None) != bool(self.dim) or (
            conditions is not None and len(conditions) != num_rows
        ):
            given = None if conditions is None else tuple(conditions.shape)
            raise DataError(
                f"{num_rows} rows come with conditions {given}, the model expects {self.describe()}: give the "
                "conditions that it was made for, one row for each"
            )

    def fit(self, conditions: NDArray[np.floating] | Tensor) -> None:
        """Take mean and deviation of ``conditions`` (N, C), and evenly spaced ones of them as the bank."""
        if conditions.ndim != 2 or conditions.shape[1] != self.dim:
            raise DataError(
                f"the conditions have shape {tuple(conditions.shape)}, the model expects {self.describe()}"
            )
        statistics = ColumnStatistics.of(conditions)
        scale = np.where(statistics.std > 0, statistics.std, 1.0)
        self.mean.copy_(torch.from_numpy(statistics.mean))
        self.std.copy_(torch.from_numpy(scale))
        index = (np.arange(BANK_SIZE) + 0.5) * len(conditions) / BANK_SIZE
        self.bank.copy_(torch.as_tensor(conditions[index.astype(np.int64)]))

    def forward(self, conditions: Tensor, present: Tensor | None = None) -> Tensor:
        """The network's input (B, C + 1) for conditions (B, C) in data units; ``present`` is (B, 1) of 0
        and 1, None for all present.
        """
        if present is None:
            present = conditions.new_ones(len(conditions), 1)
        return torch.cat([(conditions - self.mean) / self.std * present, present], dim=1)

    def absent(self, num_rows: int) -> Tensor:
        """The network's input (B, C + 1) without a condition."""
        return self.mean.new_zeros(num_rows, self.input_dim)

    def draw(self, prompt: Prompt, num_rows: int, generator: torch.Generator) -> Tensor:
        """Conditions (B, C) in data units by ``prompt``."""
        self.check(prompt)
        if prompt.kind == "values":
            return self.mean.new_tensor(prompt.values).expand(num_rows, -1)
        bank = self.bank
        if prompt.kind == "top":
            count = max(1, round(prompt.fraction * len(bank)))
            bank = bank[bank[:, 0].argsort(descending=True, stable=True)[:count]]
        index = torch.randint(len(bank), (num_rows,), generator=generator, device=generator.device)
        return bank[index]

    def check(self, prompt: Prompt) -> None:
        """Raise `ConfigError` for a prompt of another number of values."""
        if prompt.kind == "values" and len(prompt.values) != self.dim:
            raise ConfigError(
                f"prompt_values holds {len(prompt.values)} numbers, the model expects {self.describe()}: give "
                "one for each"
            )

    def describe(self) -> str:
        """The conditions in words, for messages."""
        parts = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
        return f"{self.dim} numbers a row ({parts})"
