"""The denoising network: a residual MLP over flat transitions, told the noise level by Fourier features.

SynthER (Lu et al. 2023, arXiv 2303.06614, appendix on hyperparameters); the preconditioning around it is
`lightning_synther.diffusion.preconditioning`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TimeFeatures = Literal["random", "learned", "sinusoidal"]
Activation = Literal["relu", "gelu", "mish"]


class FourierFeatures(nn.Module):
    """``[t, sin(2 pi t w), cos(2 pi t w)]`` of a scalar t, with random frequencies w, fixed or learned.

    Computed in float32 whatever the precision around it: bfloat16 would round the phase away.
    """

    frequencies: Tensor

    def __init__(self, num_frequencies: int, *, learned: bool) -> None:
        super().__init__()
        frequencies = torch.randn(num_frequencies)
        if learned:
            self.frequencies = nn.Parameter(frequencies)
        else:
            self.register_buffer("frequencies", frequencies)
        self.dim = 2 * num_frequencies + 1

    def forward(self, t: Tensor) -> Tensor:
        """Features (B, 2 num_frequencies + 1) of t (B,)."""
        t = t[:, None]
        phase = 2 * math.pi * t * self.frequencies
        return torch.cat([t, phase.sin(), phase.cos()], dim=-1)


class SinusoidalFeatures(nn.Module):
    """``[sin(t f_k), cos(t f_k)]``, geometric frequencies f_k from 1 to 1/10000 (Vaswani et al. 2017)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        """Features (B, dim) of t (B,)."""
        half = self.dim // 2
        exponent = torch.arange(half, device=t.device, dtype=t.dtype) / (half - 1)
        phase = t[:, None] * torch.exp(-math.log(10_000) * exponent)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class ResidualBlock(nn.Module):
    """Pre-activation residual layer ``h + W act(norm(h)) + b`` (He et al. 2016, arXiv 1603.05027)."""

    def __init__(self, width: int, activation: Activation, layer_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.linear = nn.Linear(width, width)
        self.activation = getattr(F, activation)

    def forward(self, h: Tensor) -> Tensor:
        """(B, width) to (B, width)."""
        return h + self.linear(self.activation(self.norm(h)))


class ResidualMLP(nn.Module):
    """The raw network F_theta of EDM (Karras et al. 2022, equation 7).

    Args:
        dim: length D of a row.
        width: hidden width.
        num_layers: residual blocks.
        time_dim: width of the noise-level embedding, and of the projection that it is added to.
        fourier_dim: number of Fourier features (sines and cosines together).
        time_features: fixed random or learned Fourier features, or the sinusoids of the transformer.
        activation: ``relu``, (exact) ``gelu`` or ``mish``.
        layer_norm: normalise before every activation.
        cond_dim: length of a condition vector, concatenated to the input; 0 for none.
    """

    def __init__(
        self,
        dim: int,
        width: int = 2048,
        num_layers: int = 6,
        *,
        time_dim: int = 128,
        fourier_dim: int = 16,
        time_features: TimeFeatures = "random",
        activation: Activation = "relu",
        layer_norm: bool = False,
        cond_dim: int = 0,
    ) -> None:
        super().__init__()
        self.time_features: FourierFeatures | SinusoidalFeatures
        if time_features == "sinusoidal":
            self.time_features = SinusoidalFeatures(time_dim)
        else:
            self.time_features = FourierFeatures(fourier_dim // 2, learned=time_features == "learned")
        self.time_mlp = nn.Sequential(
            nn.Linear(self.time_features.dim, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim)
        )
        self.proj = nn.Linear(dim + cond_dim, time_dim)
        self.stem = nn.Linear(time_dim, width)
        self.blocks = nn.Sequential(
            *(ResidualBlock(width, activation, layer_norm) for _ in range(num_layers))
        )
        self.norm = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.activation = getattr(F, activation)
        self.head = nn.Linear(width, dim)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the matrix weights, which the inputs are cast to."""
        return self.head.weight.dtype

    def embed_time(self, t: Tensor) -> Tensor:
        """Embedding (B, time_dim) of the noise conditioning t = c_noise(sigma), (B,)."""
        return self.time_mlp(self.time_features(t).to(self.dtype))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """F_theta(x; t): (B, D) from x (B, D), t (B,) or (1,), and a condition (B, C) if the network takes
        one."""
        inputs = x if cond is None else torch.cat([x, cond], dim=-1)
        h = self.proj(inputs.to(self.dtype)) + self.embed_time(t)
        h = self.blocks(self.stem(h))
        return self.head(self.activation(self.norm(h)))
