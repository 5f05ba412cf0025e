"""Samplers against the exact solution on Gaussian data, where the optimal denoiser is linear."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_synther.diffusion.noise import edm_schedule
from lightning_synther.diffusion.samplers import Churn, DiffusionSampler, dpmpp_2m, euler, heun
from lightning_synther.errors import ConfigError

MEAN = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
VARIANCES = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)
BASIS = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
COVARIANCE = BASIS @ VARIANCES.diag() @ BASIS.T


def denoise(x, sigma):
    """E[x_0 | x] for x_0 ~ N(MEAN, COVARIANCE) and x = x_0 + sigma n."""
    gain = BASIS @ (VARIANCES / (VARIANCES + sigma**2)).diag() @ BASIS.T
    return MEAN.to(x) + (x - MEAN.to(x)) @ gain.to(x)


def ode_solution(x, sigma_from, sigma_to):
    """Exact flow of dx/dsigma = (x - D) / sigma: every eigendirection shrinks with its standard deviation."""
    shrink = ((VARIANCES + sigma_to**2) / (VARIANCES + sigma_from**2)).sqrt()
    return MEAN + (x - MEAN) @ (BASIS @ shrink.diag() @ BASIS.T)


def error(solve, num_steps, sigma_min=0.02, sigma_max=20.0):
    sigmas = edm_schedule(num_steps, sigma_min, sigma_max, math.inf)[:-1]  # stop at sigma_min
    x = sigma_max * torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (solve(denoise, x, sigmas) - ode_solution(x, sigma_max, sigma_min)).norm(dim=1).mean().item()


@pytest.mark.parametrize(("solve", "order"), [(euler, 1), (heun, 2), (dpmpp_2m, 2)])
def test_order_of_convergence(solve, order):
    coarse, fine = error(solve, 101), error(solve, 201)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "tolerance"),
    [
        (DiffusionSampler(), 0.05),  # S_noise above 1 leaves 3 % too much variance
        (DiffusionSampler("heun", 80), 0.03),
        (DiffusionSampler("euler", 400), 0.03),
        (DiffusionSampler("dpmpp_2m", 80, sigma_min=0.01), 0.03),
        (DiffusionSampler("dpmpp_2m_sde", 80, sigma_min=0.01), 0.03),
        (DiffusionSampler("dpmpp_2m_sde", 15, sigma_min=0.1, sigma_max=20.0, rho=12), 0.09),
    ],
    ids=lambda s: f"{s.name}-{s.num_steps}" if isinstance(s, DiffusionSampler) else "",
)
def test_mean_and_covariance_of_gaussian_data(sampler, tolerance):
    generator = torch.Generator().manual_seed(2)
    shape = (40_000, 3)
    samples = sampler(
        denoise, torch.randn(shape, generator=generator), lambda i: torch.randn(shape, generator=generator)
    ).double()
    whiten = BASIS @ VARIANCES.rsqrt().diag()
    torch.testing.assert_close((samples - MEAN).mean(0) @ whiten, torch.zeros(3).double(), rtol=0, atol=0.03)
    torch.testing.assert_close(
        ((samples - MEAN) @ whiten).T.cov(), torch.eye(3).double(), rtol=0, atol=tolerance
    )


def test_every_sampler_makes_the_evaluations_that_it_announces():
    for name in ("stochastic_heun", "heun", "euler", "dpmpp_2m", "dpmpp_2m_sde"):
        calls = 0

        def counting(x, sigma):
            nonlocal calls
            calls += 1
            return denoise(x, sigma)

        sampler = DiffusionSampler(name, 9)
        sampler(counting, torch.randn(2, 3), lambda i: torch.randn(2, 3))
        assert calls == sampler.num_evaluations


def test_stochastic_samplers_use_the_noise_and_deterministic_ones_do_not():
    start = torch.randn(4, 3)
    for name in ("stochastic_heun", "heun", "euler", "dpmpp_2m", "dpmpp_2m_sde"):
        sampler = DiffusionSampler(name, 12)
        zeros, ones = (sampler(denoise, start, lambda i, v=v: torch.full((4, 3), v)) for v in (0.0, 1.0))
        assert torch.equal(zeros, ones) == (name in ("heun", "euler", "dpmpp_2m"))


def test_without_churn_the_stochastic_sampler_is_the_deterministic_one():
    start = torch.randn(4, 3)
    still = DiffusionSampler("stochastic_heun", 12, churn=Churn(S_churn=0.0))
    torch.testing.assert_close(
        still(denoise, start, torch.full_like), DiffusionSampler("heun", 12)(denoise, start, torch.full_like)
    )


def test_schedule_ends():
    for rho in (1.0, 7.0, math.inf):
        sigmas = edm_schedule(11, 0.05, 20.0, rho)
        assert len(sigmas) == 12
        assert (sigmas[0], sigmas[-2], sigmas[-1]) == (pytest.approx(20.0), pytest.approx(0.05), 0.0)
        assert sigmas == sorted(sigmas, reverse=True)


@pytest.mark.parametrize(
    "wrong", [{"sigma_min": 0.0}, {"sigma_min": 5.0, "sigma_max": 2.0}, {"num_steps": 0}]
)
def test_impossible_schedules_are_refused(wrong):
    with pytest.raises(ConfigError, match="is no schedule: give 0 < sigma_min < sigma_max"):
        DiffusionSampler(**wrong)


def test_unknown_sampler():
    with pytest.raises(ConfigError, match="sampler 'ddim' is unknown: choose from stochastic_heun, heun"):
        DiffusionSampler("ddim")
