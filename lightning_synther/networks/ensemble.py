"""Ensembles of linear layers, each computed in one batched matrix product."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EnsembleLinear(nn.Module):
    """E linear layers of one shape, stacked: ``weight`` is (E, out, in), ``bias`` (E, out)."""

    def __init__(self, num_members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.num_members, self.in_features, self.out_features = num_members, in_features, out_features
        self.weight = nn.Parameter(torch.empty(num_members, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(num_members, out_features))
        bound = 1 / math.sqrt(in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in), shared by all members, or (E, B, in), one for each, to (E, B, out)."""
        if x.dim() == 2:  # one matrix product with the members side by side
            y = F.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
            return y.unflatten(1, (self.num_members, self.out_features)).transpose(0, 1)
        return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        sizes = self.num_members, self.in_features, self.out_features
        return "num_members={}, in_features={}, out_features={}".format(*sizes)


class EnsembleLayerNorm(nn.Module):
    """E layer norms; ``weight`` and ``bias`` are (E, features), those of E `nn.LayerNorm`s stacked."""

    def __init__(self, num_members: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.ones(num_members, features))
        self.bias = nn.Parameter(torch.zeros(num_members, features))

    def forward(self, x: Tensor) -> Tensor:
        """(E, B, features) to the same."""
        normal = F.layer_norm(x, (self.features,))
        return torch.addcmul(self.bias[:, None], normal, self.weight[:, None])


def stack_members(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """State of an ensemble from the states of its members, equally shaped networks of `nn.Linear`s."""
    return {key: torch.stack([state[key] for state in states]) for key in states[0]}


def unstack_members(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Inverse of `stack_members`."""
    num_members = len(next(iter(state.values())))
    return [{key: value[i] for key, value in state.items()} for i in range(num_members)]
