"""Guidance: denoisers made of denoisers, so that it reaches every network evaluation of every sampler.

D(x; sigma) and the score are one thing, score = (D - x) / sigma**2, so that a term w g added to the score is
w sigma**2 g added to D. (The code of Prioritized Generative Replay guides Heun's first evaluation and not the
second; a wrapped denoiser cannot forget one.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_synther.diffusion.conditioning import Prompt
from lightning_synther.diffusion.preconditioning import Denoise
from lightning_synther.errors import ConfigError

ConditionalDenoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]

LogDensity = Callable[[Tensor, Tensor], Tensor]
"""ln f(x_0) up to a constant, (B,), of estimated clean rows x_0 (B, D) in normalised units; the second
argument is how uncertain they still are, as a variance (scalar tensor), for functions that can use it."""


@dataclass(frozen=True)
class Guidance:
    """How sampling is steered.

    Args:
        weight: of classifier-free guidance. 1: the plain conditional distribution, 0: the unconditional one;
            above 1 the condition is exaggerated, at the price of a second evaluation.
        prompt: where conditions come from when rows are sampled without any being given.
        log_density: rows are drawn in proportion to p(x) exp(density_weight * log_density(x)).
        density_weight: lambda of policy guidance.
        through_network: exact gradient with respect to the noisy row, by backpropagation through the network
            (about three times the cost), instead of the gradient at the denoised one.
        label: what ``log_density`` is, for fingerprints and messages.
    """

    weight: float = 1.0
    prompt: Prompt | None = None
    log_density: LogDensity | None = None
    density_weight: float = 1.0
    through_network: bool = False
    label: str = ""

    def __repr__(self) -> str:
        """What determines the samples; part of a store's fingerprint, so free of memory addresses."""
        density = (self.label, self.density_weight, self.through_network) if self.log_density else None
        return f"Guidance(weight={self.weight}, prompt={self.prompt}, density={density})"


def classifier_free(denoise: ConditionalDenoise, condition: Tensor, absent: Tensor, weight: float) -> Denoise:
    """D = D(x | absent) + weight * (D(x | condition) - D(x | absent)), Ho and Salimans 2022, equation 6.

    ``condition`` and ``absent`` are inputs (B, C + 1) of the network. Weights 1 and 0 need one evaluation,
    others two, made as one of twice the rows.
    """
    if weight in (0.0, 1.0):
        only = condition if weight else absent
        return lambda x, sigma: denoise(x, sigma, only)
    both = torch.cat([condition, absent])

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with_condition, without = denoise(torch.cat([x, x]), sigma, both).chunk(2)
        return torch.lerp(without, with_condition, weight)

    return guided


def gradient_guided(
    denoise: Denoise,
    log_density: LogDensity,
    weight: float = 1.0,
    *,
    sigma_data: float = 1.0,
    through_network: bool = False,
) -> Denoise:
    """The denoiser of p(x) exp(weight * log_density(x)), by the gradient of the log density.

    D' = D + weight * Cov[x_0 | x] grad log_density(D). With ``through_network`` the covariance is
    sigma**2 dD/dx, by backpropagation (Chung et al. 2023, arXiv 2209.14687, equation 10); for Gaussian data and
    a linear log density that is exact. Without, it is that of independent columns of deviation ``sigma_data``,
    sigma**2 sigma_data**2 / (sigma**2 + sigma_data**2), exact for such data; the network is not
    differentiated, as in Policy-Guided Diffusion (Jackson et al. 2024, arXiv 2404.06356).
    """

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        variance = sigma**2 * sigma_data**2 / (sigma**2 + sigma_data**2)
        D_x = None if through_network else denoise(x, sigma)
        with torch.inference_mode(False), torch.enable_grad():  # Trainer.predict is in inference mode
            level, uncertainty = sigma.clone(), variance.clone()
            point = (x if D_x is None else D_x).clone().requires_grad_()
            clean = denoise(point, level) if D_x is None else point
            (gradient,) = torch.autograd.grad(log_density(clean, uncertainty).sum(), point)
        scale = sigma**2 if D_x is None else variance
        return (clean.detach() if D_x is None else D_x) + weight * scale * gradient

    return guided


def check_guidance(guidance: Guidance, conditional: bool, condition_dropout: float) -> None:
    """Raise `ConfigError` for guidance that a model cannot follow."""
    if not conditional and (guidance.weight != 1 or guidance.prompt is not None):
        raise ConfigError(
            f"guidance_weight is {guidance.weight} and prompt {guidance.prompt}, but the model has no "
            "conditions: train it with some, or leave both at their defaults"
        )
    if conditional and guidance.weight != 1 and condition_dropout == 0:
        raise ConfigError(
            f"guidance_weight is {guidance.weight}, but the model was trained with condition_dropout 0 and "
            "knows no unconditional distribution: train it with dropout, or give guidance_weight 1"
        )
