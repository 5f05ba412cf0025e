"""Samplers: from noise to data by calls of a denoiser D(x, sigma), each a pure function.

Every one walks down a list of noise levels ``sigmas`` (last one 0) from x at level ``sigmas[0]``. Noise
levels are Python floats, so a step never waits for the device. ``noise(i)`` gives the standard normals of
step i, so that draws can be injected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_synther.diffusion.noise import Schedule, noise_schedule
from lightning_synther.diffusion.preconditioning import Denoise
from lightning_synther.errors import ConfigError

StepNoise = Callable[[int], Tensor]
SamplerName = Literal["stochastic_heun", "heun", "euler", "dpmpp_2m", "dpmpp_2m_sde"]


def _level(x: Tensor, sigma: float) -> Tensor:
    """``sigma`` beside x, filled on the device: a copy from the host would wait for it."""
    return x.new_full((), sigma)


@dataclass(frozen=True)
class Churn:
    """How much fresh noise each step of the stochastic sampler adds (Karras et al. 2022, Algorithm 2).

    Between noise levels ``S_tmin`` and ``S_tmax`` a step first raises the noise by the factor 1 + gamma,
    with new noise of standard deviation ``S_noise``. ``S_churn=0`` gives the deterministic sampler.
    """

    S_churn: float = 80.0
    S_tmin: float = 0.05
    S_tmax: float = 50.0
    S_noise: float = 1.003

    def gamma(self, sigma: float, num_steps: int) -> float:
        """gamma_i of Algorithm 2, at most sqrt(2) - 1."""
        if not self.S_tmin <= sigma <= self.S_tmax:
            return 0.0
        return min(self.S_churn / num_steps, math.sqrt(2) - 1)


def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    churn: Churn | None = None,
    noise: StepNoise | None = None,
) -> Tensor:
    """EDM's second-order sampler, Algorithm 2 (Algorithm 1 without ``churn``): 2N - 1 evaluations."""
    num_steps = len(sigmas) - 1
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        sigma_hat, gamma = sigma, churn.gamma(sigma, num_steps) if churn else 0.0
        if churn and noise and gamma > 0:
            sigma_hat = sigma * (1 + gamma)
            x = x + math.sqrt(sigma_hat**2 - sigma**2) * churn.S_noise * noise(i)
        d = (x - denoise(x, _level(x, sigma_hat))) / sigma_hat
        x_euler = x + (sigma_next - sigma_hat) * d
        if sigma_next == 0:
            return x_euler
        d_next = (x_euler - denoise(x_euler, _level(x, sigma_next))) / sigma_next
        x = x + (sigma_next - sigma_hat) / 2 * (d + d_next)
    return x


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """First-order sampler of the probability-flow ODE (equal to DDIM, Song et al. 2021): N evaluations."""
    for sigma, sigma_next in pairwise(sigmas):
        x = torch.lerp(denoise(x, _level(x, sigma)), x, sigma_next / sigma)
    return x


def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    eta: float = 0.0,
    noise: StepNoise | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, Algorithm 2); ``eta=1`` is its SDE form.

    N evaluations; second order, since a step extrapolates with the evaluation before it. With
    lambda = -ln sigma, h = lambda_next - lambda and weight w = 1 - exp(-(1 + eta) h), a step is
    x <- (1 - w) x + w (D + h / (2 h_last) (D - D_last)) + sigma_next sqrt(1 - exp(-2 eta h)) noise.
    """
    D_last, h_last = None, 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        D_x = denoise(x, _level(x, sigma))
        if sigma_next == 0:
            return D_x
        h = math.log(sigma / sigma_next)
        target = D_x if D_last is None else torch.lerp(D_last, D_x, 1 + h / (2 * h_last))
        weight = -math.expm1(-(1 + eta) * h)
        x = torch.lerp(x, target, weight)
        if eta > 0 and noise:
            x = x + sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * noise(i)
        D_last, h_last = D_x, h
    return x


@dataclass(frozen=True)
class DiffusionSampler:
    """A sampler and its noise levels, chosen by name; the defaults are SynthER's.

    Args:
        name: ``stochastic_heun`` (EDM Algorithm 2), ``heun``, ``euler``, ``dpmpp_2m``, ``dpmpp_2m_sde``.
        num_steps: N; Heun makes 2N - 1 network evaluations, the others N.
        sigma_min: smallest noise level before the last step to 0.
        sigma_max: first noise level.
        rho: spacing of the levels (`edm_schedule`).
        churn: noise of the stochastic Heun sampler.
        schedule: kind of spacing (`noise_schedule`); only ``edm`` uses ``rho``.
    """

    name: SamplerName = "stochastic_heun"
    num_steps: int = 128
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    churn: Churn = Churn()
    schedule: Schedule = "edm"

    def __post_init__(self) -> None:
        if self.name not in get_args(SamplerName):
            raise ConfigError(
                f"sampler {self.name!r} is unknown: choose from {', '.join(get_args(SamplerName))}"
            )
        self.sigmas()

    def sigmas(self) -> list[float]:
        """The N + 1 noise levels, descending to 0."""
        return noise_schedule(self.schedule, self.num_steps, self.sigma_min, self.sigma_max, self.rho)

    @property
    def num_evaluations(self) -> int:
        """Network evaluations for one batch."""
        return 2 * self.num_steps - 1 if self.name in ("heun", "stochastic_heun") else self.num_steps

    def __call__(self, denoise: Denoise, initial_noise: Tensor, noise: StepNoise) -> Tensor:
        """Normalised rows (B, D) from standard normals (B, D), and those of every step."""
        sigmas = self.sigmas()
        x = initial_noise * sigmas[0]
        if self.name == "stochastic_heun":
            return heun(denoise, x, sigmas, churn=self.churn, noise=noise)
        if self.name == "heun":
            return heun(denoise, x, sigmas)
        if self.name == "euler":
            return euler(denoise, x, sigmas)
        return dpmpp_2m(denoise, x, sigmas, eta=float(self.name == "dpmpp_2m_sde"), noise=noise)
