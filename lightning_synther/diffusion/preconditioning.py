"""EDM preconditioning: the denoiser D(x; sigma) around a raw network.

Karras et al. 2022, "Elucidating the design space of diffusion-based generative models" (EDM),
arXiv 2206.00364, Table 1. Everything downstream (loss, samplers, likelihood) knows only the callable
``D(x, sigma)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Target = Literal["edm", "flow"]
"""What the raw network learns: EDM's mixture of clean rows and noise, or the velocity of straight paths."""

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


def flow_coefficients(sigma: Tensor) -> Coefficients:
    """The factors with which F is the velocity of flow matching on straight paths (Lipman et al. 2023,
    arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003).

    On the path x_t = (1 - t) x_0 + t n the velocity is v = n - x_0, so that x_0 = x_t - t v. Up to its scale
    x_t is a row with noise sigma = t / (1 - t): x_t = (x_0 + sigma n) / (1 + sigma). Hence D = c_in x - t F,
    and Euler's steps in t are Euler's steps in sigma: every sampler works on either kind of network.
    """
    scale = 1 / (1 + sigma)
    return Coefficients(
        c_skip=scale, c_out=-sigma * scale, c_in=scale, c_noise=sigma.clamp(min=1e-20).log() / 4
    )


def loss_weight(sigma: Tensor, sigma_data: float, target: Target = "edm") -> Tensor:
    """lambda(sigma) = 1 / c_out**2, which makes the loss that of F.

    For ``edm`` every noise level weighs the same at initialisation; for ``flow`` it is the squared error of
    the velocity.
    """
    if target == "flow":
        return (1 + 1 / sigma) ** 2
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


class Preconditioned(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), equation 7.

    Args:
        network: F, called as ``network(x, c_noise, cond)``.
        sigma_data: standard deviation of the normalised data.
        target: what F stands for; ``flow`` does not use ``sigma_data``.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 1.0, target: Target = "edm") -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data
        self.target: Target = target

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The factors at noise levels (B,)."""
        return flow_coefficients(sigma) if self.target == "flow" else coefficients(sigma, self.sigma_data)

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
        """D_x (B, D) in x's precision; x (B, D), sigma (B,) or scalar, cond (B, C) or None."""
        c = self.coefficients(sigma.to(x).reshape(-1))
        F_x = self.network(c.c_in[:, None] * x, c.c_noise, cond).to(x.dtype)
        return torch.addcmul(c.c_skip[:, None] * x, c.c_out[:, None], F_x)
