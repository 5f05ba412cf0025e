"""Per-column normalisation of rows; the statistics are buffers, hence part of every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import ConfigError
from lightning_synther.transition import TransitionSpec

NormalizerName = Literal["standard", "minmax"]


class Normalizer(nn.Module):
    """Base class: whether it was fitted, and which columns were constant in the data."""

    clamp: bool = False  # whether normalised data lie in [-1, 1], where samplers may be held
    fitted: Tensor
    constant: Tensor
    constant_value: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.register_buffer("constant", torch.zeros(dim, dtype=torch.bool))
        self.register_buffer("constant_value", torch.zeros(dim))

    def fit(self, statistics: ColumnStatistics) -> None:
        """Take over the statistics of the training data."""
        self.constant.copy_(torch.from_numpy(statistics.min == statistics.max))
        self.constant_value.copy_(torch.from_numpy(statistics.min))
        self.fitted.fill_(True)

    def inverse(self, x: Tensor) -> Tensor:
        """Data units (B, D) from normalised rows (B, D)."""
        raise NotImplementedError

    def restore_constants(self, rows: Tensor) -> Tensor:
        """Rows (B, D) with every column that was constant in the data set to its constant, exactly."""
        return torch.where(self.constant, self.constant_value, rows)


class StandardNormalizer(Normalizer):
    """``(x - mean) / (std + eps) * target_std`` per column, as SynthER; skipped columns pass unchanged.

    Args:
        dim: number of columns D.
        skip: columns left as they are.
        target_std: standard deviation after normalisation.
        eps: added to the standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, dim: int, skip: Sequence[int] = (), target_std: float = 1.0, eps: float = 1e-5
    ) -> None:
        super().__init__(dim)
        self.skip, self.target_std, self.eps = list(skip), target_std, eps
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, statistics: ColumnStatistics) -> None:
        """Take mean and unbiased standard deviation."""
        super().fit(statistics)
        self.mean.copy_(torch.from_numpy(statistics.mean))
        self.std.copy_(torch.from_numpy(statistics.std)).add_(self.eps)
        self.mean[self.skip], self.std[self.skip] = 0.0, 1.0

    def forward(self, rows: Tensor) -> Tensor:
        """Normalised rows (B, D)."""
        return (rows - self.mean) / self.std * self.target_std

    def inverse(self, x: Tensor) -> Tensor:
        """Data units (B, D) from normalised rows (B, D)."""
        return x / self.target_std * self.std + self.mean


class MinMaxNormalizer(Normalizer):
    """``(x - min) / (max - min) * 2 - 1`` per column, where max includes ``eps``, as SynthER."""

    clamp = True
    min: Tensor
    max: Tensor

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__(dim)
        self.eps = eps
        self.register_buffer("min", torch.full((dim,), -1.0))
        self.register_buffer("max", torch.ones(dim))

    def fit(self, statistics: ColumnStatistics) -> None:
        """Take the extremes."""
        super().fit(statistics)
        self.min.copy_(torch.from_numpy(statistics.min))
        self.max.copy_(torch.from_numpy(statistics.max)).add_(self.eps)

    def forward(self, rows: Tensor) -> Tensor:
        """Normalised rows (B, D) in [-1, 1]."""
        return (rows - self.min) / (self.max - self.min) * 2 - 1

    def inverse(self, x: Tensor) -> Tensor:
        """Data units (B, D) from normalised rows (B, D)."""
        return (x + 1) / 2 * (self.max - self.min) + self.min


def build_normalizer(spec: TransitionSpec, kind: NormalizerName, skip_fields: Sequence[str]) -> Normalizer:
    """Normaliser for rows of ``spec``; raises `ConfigError` where ``skip_fields`` cannot be honoured."""
    known = {*spec.fields, "terminal"}
    for name in skip_fields:
        if name not in known:
            raise ConfigError(f"skip_fields names {name!r}: the fields of a transition are {sorted(known)}")
    skip = [
        i for name in skip_fields if name in spec.fields for i in range(*spec.fields[name].indices(spec.dim))
    ]
    if kind == "standard":
        return StandardNormalizer(spec.dim, skip)
    if kind != "minmax":
        raise ConfigError(f"normalizer {kind!r} is unknown: choose 'standard' or 'minmax'")
    if skip:
        raise ConfigError(
            f"normalizer 'minmax' maps every field to [-1, 1] and cannot skip {list(skip_fields)}: "
            "set skip_fields to [] or normalizer to 'standard'"
        )
    return MinMaxNormalizer(spec.dim)
