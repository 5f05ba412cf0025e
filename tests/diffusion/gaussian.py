"""Gaussian data, for which everything is known: the denoiser is linear."""

from __future__ import annotations

import torch

GRAIN = torch.Generator().manual_seed(0)
BASIS = torch.linalg.qr(torch.randn(3, 3, generator=GRAIN, dtype=torch.float64))[0]
MEAN = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
COVARIANCE = BASIS @ torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64).diag() @ BASIS.T


def denoiser(mean, covariance):
    """E[x_0 | x] for x_0 ~ N(mean, covariance) and x = x_0 + sigma n."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype)

    def denoise(x, sigma):
        gain = covariance @ torch.linalg.inv(covariance + sigma.to(covariance) ** 2 * eye)
        return mean.to(x) + (x - mean.to(x)) @ gain.T.to(x)

    return denoise


def draw(sampler, denoise, num_rows=40_000, dim=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_rows, dim)
    start = torch.randn(shape, generator=generator)
    return sampler(denoise, start, lambda i: torch.randn(shape, generator=generator)).double()
