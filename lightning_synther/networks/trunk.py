"""Trunks: from a feature map (or from a vector that already is one) to the short vector that the heads
read.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class FeatureMapLinear(nn.Linear):
    """Linear layer on a feature map (B, C, H, W) that the convolutions left in channels-last memory.

    Its weight holds the columns in the map's memory order (row, column, channel), so flattening copies
    nothing. In the ``state_dict`` columns stand in the logical order (channel, row, column), as in the
    published checkpoints.
    """

    def __init__(self, map_shape: tuple[int, int, int], out_features: int) -> None:
        super().__init__(math.prod(map_shape), out_features)
        self.map_shape = map_shape
        self.register_state_dict_post_hook(_columns_to_logical_order)
        self.register_load_state_dict_pre_hook(_columns_to_memory_order)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out)."""
        return F.linear(x.permute(0, 2, 3, 1).flatten(1), self.weight, self.bias)


def _columns_to_logical_order(
    module: FeatureMapLinear, state: dict[str, Any], prefix: str, _metadata: Any
) -> None:
    channels, height, width = module.map_shape
    weight = state[prefix + "weight"].unflatten(1, (height, width, channels))
    state[prefix + "weight"] = weight.permute(0, 3, 1, 2).flatten(1)


def _columns_to_memory_order(
    module: FeatureMapLinear, state: dict[str, Any], prefix: str, *_rest: Any
) -> None:
    weight = state.get(prefix + "weight")
    if weight is not None and weight.shape == module.weight.shape:  # else load_state_dict names the mismatch
        state[prefix + "weight"] = weight.unflatten(1, module.map_shape).permute(0, 2, 3, 1).flatten(1)


class Trunk(nn.Sequential):
    """Linear, LayerNorm, Tanh: feature map (B, C, H, W) to (B, feature_dim) in (-1, 1) (DrQ-v2).

    Under bf16 autocast only the matrix product runs in bf16: the result is always float32.
    """

    def __init__(self, map_shape: tuple[int, int, int], feature_dim: int) -> None:
        super().__init__(FeatureMapLinear(map_shape, feature_dim), nn.LayerNorm(feature_dim), nn.Tanh())
        self.feature_dim = feature_dim

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, feature_dim)."""
        linear, norm, tanh = self
        features: Tensor = tanh(norm(linear(x).to(norm.weight.dtype)))
        return features


class VectorTrunk(Trunk):
    """The same for a vector (B, D) that a frozen backbone made, in place of a feature map."""

    def __init__(self, in_features: int, feature_dim: int) -> None:
        nn.Sequential.__init__(
            self, nn.Linear(in_features, feature_dim), nn.LayerNorm(feature_dim), nn.Tanh()
        )
        self.feature_dim = feature_dim


class Columns(nn.Module):
    """The columns of a latent vector that one trunk wrote: stands where pixels have a `Trunk`."""

    def __init__(self, columns: slice) -> None:
        super().__init__()
        self.start, self.stop = columns.start, columns.stop
        self.feature_dim = self.stop - self.start

    def forward(self, x: Tensor) -> Tensor:
        """(B, O) to (B, feature_dim)."""
        return x[:, self.start : self.stop]


class WholeVector(nn.Identity):
    """A state vector as it is: stands where pixels have a `Trunk`."""

    def __init__(self, observation_dim: int) -> None:
        super().__init__()
        self.feature_dim = observation_dim


AnyTrunk = Trunk | Columns | WholeVector
