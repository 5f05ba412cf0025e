"""Standardised states, with the statistics of a dataset kept in the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_synther.errors import ConfigError

#: Added to the standard deviation, as in the published offline code: a constant column stays finite.
EPSILON = 1e-3


class StateNormalizer(nn.Module):
    """(s - mean) / (std + 1e-3) for states s, with mean and standard deviation (ddof 0) of the data's states.

    As SynthER's offline agents have it (TD3+BC, Fujimoto and Gu 2021, section 5). Statistics are buffers, so
    a checkpoint that holds them acts on states as they are.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, observation_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(observation_dim))
        self.register_buffer("scale", torch.zeros(observation_dim))  # of nothing: no data yet
        self.fitted = False

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Take over the statistics (O,) of a dataset."""
        self.mean.copy_(mean)
        self.scale.copy_(std + EPSILON)
        self.fitted = True

    def forward(self, states: Tensor) -> Tensor:
        """States (B, O) to the same, standardised; `ConfigError` before `fit`."""
        if not self.fitted:
            raise ConfigError(
                "normalize_states is true, but the agent has not seen its data: train it on a store, or call "
                "fit_normalizer(states)"
            )
        return (states - self.mean) / self.scale

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self.fitted = bool((self.scale > 0).all())
