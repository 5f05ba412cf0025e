"""Log-likelihood of rows by the probability-flow ODE (Song et al. 2021, arXiv 2011.13456, section 4.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchdiffeq import odeint

from lightning_synther.diffusion.preconditioning import Denoise


def log_likelihood(
    denoise: Denoise,
    x: Tensor,
    probe: Tensor,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    tolerance: float = 1e-4,
) -> Tensor:
    """ln p(x) of normalised rows x (B, D), estimated with Hutchinson's trace estimator; (B,) in nats.

    ``probe``: (B, D) of -1 and 1. Integrates dx/dsigma = (x - D) / sigma and the divergence of that flow from
    ``sigma_min`` to ``sigma_max``, where x is Gaussian, by an adaptive Runge-Kutta solver with absolute and
    relative ``tolerance``. The Jacobian of the normaliser is not included.
    """

    def flow(sigma: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = state[0].detach().requires_grad_()
            d = (x - denoise(x, sigma)) / sigma
            (gradient,) = torch.autograd.grad((d * probe).sum(), x)
        return d.detach(), (gradient * probe).sum(dim=-1)

    interval = x.new_tensor([sigma_min, sigma_max])
    start = (x, x.new_zeros(len(x)))
    xs, traces = odeint(flow, start, interval, atol=tolerance, rtol=tolerance, method="dopri5")
    end, divergence = xs[-1], traces[-1]
    log_prior = -0.5 * (end / sigma_max).square() - 0.5 * math.log(2 * math.pi) - math.log(sigma_max)
    return log_prior.sum(dim=-1) + divergence
