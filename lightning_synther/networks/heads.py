"""Heads of the agents: multilayer perceptrons, the actor, and the critic ensemble."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_synther.networks.ensemble import (
    EnsembleLayerNorm,
    EnsembleLinear,
    stack_members,
    unstack_members,
)
from lightning_synther.networks.perceptron import perceptron
from lightning_synther.networks.trunk import AnyTrunk

LinearFactory = Callable[[int, int], nn.Linear | EnsembleLinear]


class ResidualBlock(nn.Module):
    """Pre-norm residual block ``h + W2 relu(W1 norm(h))``, four times as wide inside.

    The feed-forward block of SimBa (Lee et al. 2024, arXiv 2410.09754, section 4.2), which keeps agents
    stable as their networks grow.
    """

    EXPANSION = 4

    def __init__(self, width: int, linear: LinearFactory = nn.Linear) -> None:
        super().__init__()
        widen, narrow = linear(width, self.EXPANSION * width), linear(self.EXPANSION * width, width)
        self.norm, self.widen, self.narrow = norm_for(narrow), widen, narrow

    def forward(self, h: Tensor) -> Tensor:
        """(B, width) to the same, or (E, B, width) for an ensemble."""
        inner: Tensor = self.narrow(torch.relu_(self.widen(self.norm(h))))
        return h + inner


class MLP(nn.Sequential):
    """``num_layers`` hidden layers of ``hidden_dim`` with ReLU, after LayerNorm if asked; a linear layer.

    ``linear`` makes one linear layer; with `EnsembleLinear` the perceptron is an ensemble. Without
    LayerNorm the layers are numbered 0, 2, 4, ... as in the published networks. With ``residual`` it is
    SimBa's network: a linear layer to ``hidden_dim``, ``num_layers`` of `ResidualBlock`, LayerNorm, a linear
    layer. Under bf16 autocast the last layer stays in float32: a return of a few hundred has no precision to
    lose.

    On the CPU the layers are computed as one (`networks.perceptron`), unless they are to be differentiated twice.
    """

    twice_differentiable = False

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_dim: int,
        num_layers: int = 2,
        layer_norm: bool = False,
        linear: LinearFactory = nn.Linear,
        residual: bool = False,
    ) -> None:
        if residual:
            stem, blocks = linear(in_features, hidden_dim), (hidden_dim, linear)
            layers = [stem, *(ResidualBlock(*blocks) for _ in range(num_layers)), norm_for(stem)]
            super().__init__(*layers, linear(hidden_dim, out_features))
            self._residual = True
            return
        layers = []
        for _ in range(num_layers):
            layer = linear(in_features, hidden_dim)
            layers.append(layer)
            if layer_norm:
                layers.append(norm_for(layer))
            layers.append(nn.ReLU(inplace=True))
            in_features = hidden_dim
        last = linear(in_features, out_features)
        super().__init__(*layers, last)
        self._residual, self._layer_norm = False, layer_norm
        self._dims = (2, 3) if isinstance(last, EnsembleLinear) else (2,)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in) to (B, out), or to (E, B, out) for an ensemble."""
        if self._is_one_function(x):
            return self._as_one_function(x)
        *hidden, last = list(self)
        for layer in hidden:
            x = layer(x)
        with torch.autocast(x.device.type, enabled=False):
            output: Tensor = last(x.to(last.weight.dtype))  # type: ignore[arg-type]
        return output

    def _is_one_function(self, x: Tensor) -> bool:
        plain = self._residual or self.twice_differentiable or torch.compiler.is_compiling()
        # On a GPU the kernels of the layers overlap with Python, and an ensemble's LayerNorm is one of them.
        return not plain and x.device.type == "cpu" and x.dim() in self._dims

    def _as_one_function(self, x: Tensor) -> Tensor:
        parameters: list[Any] = [p for layer in self._modules.values() for p in layer._parameters.values()]
        if not torch.is_autocast_enabled("cpu"):
            return perceptron(x, parameters, self._layer_norm, parameters[0].dtype)
        torch.set_autocast_enabled("cpu", False)  # cheaper than the context manager, several times an update
        try:
            return perceptron(x, parameters, self._layer_norm, torch.get_autocast_dtype("cpu"))
        finally:
            torch.set_autocast_enabled("cpu", True)


def norm_for(layer: nn.Linear | EnsembleLinear) -> nn.Module:
    """LayerNorm of a layer's output, for each member of an ensemble its own."""
    if isinstance(layer, EnsembleLinear):
        return EnsembleLayerNorm(layer.num_members, layer.out_features)
    return nn.LayerNorm(layer.out_features)


class Actor(nn.Module):
    """Deterministic policy: tanh of a perceptron on the trunk's features, times the largest action."""

    def __init__(self, trunk: AnyTrunk, policy: MLP, max_action: float = 1.0) -> None:
        super().__init__()
        self.trunk, self.policy, self.max_action = trunk, policy, max_action

    def forward(self, features: Tensor) -> Tensor:
        """Action (B, A) within max_action, for what the encoder made of the observations."""
        return torch.tanh(self.policy(self.trunk(features))) * self.max_action


class Critic(nn.Module):
    """E action values on one shared trunk of its own."""

    def __init__(self, trunk: AnyTrunk, q: MLP) -> None:
        super().__init__()
        self.trunk, self.q = trunk, q

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Values (E, B, 1) of ``action``, for what the encoder made of the observations.

        Actions are (B, A), or (E, B, A) where each critic has its own.
        """
        trunk = self.trunk(features).expand(*action.shape[:-1], -1)
        values: Tensor = self.q(torch.cat([trunk, action], dim=-1))
        return values

    def of_each(self, features: Tensor, actions: Tensor) -> Tensor:
        """Values (E, B, M) of M ``actions`` (B, M, A) for each observation, with one pass of the trunk."""
        trunk = self.trunk(features)[:, None].expand(-1, actions.shape[1], -1)
        values: Tensor = self.q(torch.cat([trunk, actions], dim=-1).flatten(0, 1))
        return values.unflatten(1, actions.shape[:2]).squeeze(-1)


class Value(nn.Module):
    """The value of an observation, on a trunk of its own."""

    def __init__(self, trunk: AnyTrunk, v: MLP) -> None:
        super().__init__()
        self.trunk, self.v = trunk, v

    def forward(self, features: Tensor) -> Tensor:
        """Values (B, 1), for what the encoder made of the observations."""
        value: Tensor = self.v(self.trunk(features))
        return value


def ensemble_of(num_members: int) -> LinearFactory:
    """Factory of linear layers for an `MLP` with ``num_members`` members."""
    return lambda in_features, out_features: EnsembleLinear(num_members, in_features, out_features)


def critic_to_reference(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """State of a `Critic` in the layout of the published checkpoints: Q1, Q2, ... for the ensemble."""
    members = unstack_members({k.removeprefix("q."): v for k, v in state.items() if k.startswith("q.")})
    reference = {k: v for k, v in state.items() if not k.startswith("q.")}
    for i, member in enumerate(members, start=1):
        reference |= {f"Q{i}.{key}": value for key, value in member.items()}
    return reference


def critic_from_reference(reference: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `critic_to_reference`."""
    state = {k: v for k, v in reference.items() if not k.startswith("Q")}
    num_members = len({key.partition(".")[0] for key in reference if key.startswith("Q")})
    members = [
        {k.removeprefix(f"Q{i}."): v for k, v in reference.items() if k.startswith(f"Q{i}.")}
        for i in range(1, num_members + 1)
    ]
    return state | {f"q.{key}": value for key, value in stack_members(members).items()}


def orthogonal_init(module: nn.Module) -> None:
    """DrQ-v2's initialisation, for `nn.Module.apply`: orthogonal weights, zero biases."""
    if isinstance(module, nn.Conv2d):
        contiguous = torch.empty(module.weight.shape)  # orthogonal_ cannot write channels-last memory
        module.weight.data.copy_(nn.init.orthogonal_(contiguous, nn.init.calculate_gain("relu")))
    elif isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight)
    elif isinstance(module, EnsembleLinear):
        for weight in module.weight.data:
            nn.init.orthogonal_(weight)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
