"""Flow matching on straight paths is the same denoiser in other words."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lightning_synther.diffusion.loss import edm_loss
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.noise import noise_schedule
from lightning_synther.diffusion.preconditioning import Preconditioned, flow_coefficients
from lightning_synther.diffusion.samplers import DiffusionSampler, euler
from lightning_synther.errors import ConfigError
from tests.diffusion.gaussian import COVARIANCE, MEAN, denoiser, draw
from tests.diffusion.test_module import ROWS, SPEC, fit


class Velocity(torch.nn.Module):
    """E[n - x_0 | x_t] for Gaussian data, as a network of x_t and c_noise."""

    def forward(self, x_t, c_noise, cond=None):
        sigma = (4 * c_noise)[0].exp()
        t = sigma / (1 + sigma)
        return (x_t - denoiser(MEAN, COVARIANCE)(x_t / (1 - t), sigma)) / t


@pytest.mark.parametrize("sigma", [0.01, 0.5, 1.0, 30.0])
def test_the_denoiser_of_the_optimal_velocity(sigma):
    level = torch.tensor([sigma], dtype=torch.float64)
    x = torch.randn(9, 3, dtype=torch.float64) * (1 + sigma)
    ours = Preconditioned(Velocity(), target="flow")(x, level)
    torch.testing.assert_close(ours, denoiser(MEAN, COVARIANCE)(x, level))


def test_the_loss_is_that_of_the_velocity():
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 3)
    model = Preconditioned(lambda x, c, cond: network(x), target="flow")
    x, noise = torch.randn(2, 50, 3)
    t = torch.rand(50) * 0.98 + 0.01
    x_t = (1 - t)[:, None] * x + t[:, None] * noise
    expected = (network(x_t) - (noise - x)).square().mean(-1)
    ours = edm_loss(model, x, t / (1 - t), noise, 1.0, "flow")
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_eulers_steps_in_time_are_eulers_steps_in_sigma():
    start = torch.randn(9, 3, dtype=torch.float64)
    sigmas = noise_schedule("straight", 12, 0.05, 50.0)
    ours = euler(Preconditioned(Velocity(), target="flow"), start * sigmas[0], sigmas)
    times = [sigma / (1 + sigma) for sigma in sigmas]
    x_t, velocity = start * times[0], Velocity()
    for t, t_next in pairwise(times):
        c_noise = flow_coefficients(torch.tensor([t / (1 - t)], dtype=torch.float64)).c_noise
        x_t = x_t + (t_next - t) * velocity(x_t, c_noise)
    torch.testing.assert_close(ours, x_t)


@pytest.mark.parametrize("schedule", ["edm", "log", "straight"])
def test_every_schedule_goes_from_noise_to_data(schedule):
    sigmas = noise_schedule(schedule, 15, 0.05, 20.0)
    assert len(sigmas) == 16
    assert (sigmas[0], sigmas[-2], sigmas[-1]) == (pytest.approx(20.0), pytest.approx(0.05), 0.0)
    assert sigmas == sorted(sigmas, reverse=True)
    sampler = DiffusionSampler("heun", 60, 0.02, 40.0, schedule=schedule)
    samples = draw(sampler, denoiser(MEAN, COVARIANCE), 20_000)
    torch.testing.assert_close(samples.T.cov(), COVARIANCE, rtol=0.05, atol=0.05)


def test_unknown_schedule():
    with pytest.raises(ConfigError, match="schedule 'linear' is unknown: choose from edm, log, straight"):
        DiffusionSampler(schedule="linear")


def test_a_model_trained_on_velocities_samples_the_data():
    torch.manual_seed(0)
    model = LatentDiffusion(SPEC.to_dict(), width=96, num_layers=3, time_dim=16, lr=2e-3, target="flow")
    model.fit_normalizer(ROWS)
    fit(model, 800, updates_per_step=10)
    fast = DiffusionSampler("dpmpp_2m_sde", 15, sigma_min=0.05, sigma_max=20.0)
    samples = model.sample(3000, seed=0, sampler=fast)
    torch.testing.assert_close(samples.mean(0), ROWS.mean(0), rtol=0, atol=0.3)
    torch.testing.assert_close(samples.std(0) / ROWS.std(0), torch.ones(SPEC.dim), rtol=0, atol=0.15)
    s, a, _, s_next, _ = SPEC.unflatten(samples)
    assert (s_next - (0.9 * s + a)).square().mean().sqrt() < 0.35
