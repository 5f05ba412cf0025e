"""EDM preconditioning: the denoiser D(x; sigma) around a raw network.

Karras et al. 2022, "Elucidating the design space of diffusion-based generative models" (EDM),
arXiv 2206.00364, Table 1. Everything downstream (loss, samplers, likelihood) knows only the callable
``D(x, sigma)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``D(x, sigma)``: estimate of the clean rows from x = clean + sigma * noise.

x (B, D) in normalised units, sigma (B,) or a scalar tensor, result (B, D). Guidance, conditioning and other
training targets (a flow-matching velocity is an affine function of D) wrap this callable, and so reach every
evaluation that a sampler makes.
"""


class Coefficients(NamedTuple):
    """The four factors of D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), each of sigma's shape."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def coefficients(sigma: Tensor, sigma_data: float) -> Coefficients:
    """Table 1, column "Ours": factors that give F's input and target unit variance at every noise level."""
    variance = sigma**2 + sigma_data**2
    scale = variance.rsqrt()
    return Coefficients(
        c_skip=sigma_data**2 / variance,
        c_out=sigma * sigma_data * scale,
        c_in=scale,
        c_noise=sigma.clamp(min=1e-20).log() / 4,
    )


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(sigma) = 1 / c_out**2: every noise level weighs the same at initialisation."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


class Preconditioned(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), equation 7.

    Args:
        network: F, called as ``network(x, c_noise, cond)``.
        sigma_data: standard deviation of the normalised data.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
        """D_x (B, D) in x's precision; x (B, D), sigma (B,) or scalar, cond (B, C) or None."""
        c = coefficients(sigma.to(x).reshape(-1), self.sigma_data)
        F_x = self.network(c.c_in[:, None] * x, c.c_noise, cond).to(x.dtype)
        return torch.addcmul(c.c_skip[:, None] * x, c.c_out[:, None], F_x)
