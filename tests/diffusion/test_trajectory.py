"""What is shown of a sampler's way is the way: it ends in the sample, and each step follows from the one before."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.diffusion.trajectory import add_noise, denoising_steps
from lightning_synther.errors import ConfigError
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=2, action_dim=1, discount=0.99)
EULER = DiffusionSampler("euler", num_steps=5, sigma_min=0.1)


@pytest.fixture
def model() -> LatentDiffusion:
    torch.manual_seed(0)
    module = LatentDiffusion(spec=SPEC.to_dict(), width=16, num_layers=1)
    module.fit_normalizer(3 + 2 * torch.randn(200, SPEC.dim))
    for parameter in module.ema.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module.eval()


def test_the_last_estimate_is_the_sample(model):
    steps = denoising_steps(model, 7, seed=3, sampler=EULER)
    assert [step.sigma for step in steps] == pytest.approx(EULER.sigmas()[:-1])
    torch.testing.assert_close(steps[-1].estimate, model.sample(7, seed=3, sampler=EULER))


def test_each_step_moves_towards_the_estimate(model):
    steps = denoising_steps(model, 7, seed=3, sampler=EULER)
    for before, after in pairwise(steps):
        expected = torch.lerp(before.estimate, before.noisy, after.sigma / before.sigma)
        torch.testing.assert_close(after.noisy, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["heun", "stochastic_heun", "dpmpp_2m_sde"])
def test_every_evaluation_is_kept(model, name):
    sampler = DiffusionSampler(name, num_steps=4)
    assert len(denoising_steps(model, 3, seed=0, sampler=sampler)) == sampler.num_evaluations


def test_nothing_is_left_behind_in_the_model(model):
    denoising_steps(model, 3, seed=0, sampler=EULER)
    assert not model.ema.model._forward_hooks


def test_noise_has_the_level_that_was_asked_for(model):
    rows = 3 + 2 * torch.randn(5000, SPEC.dim)
    step = add_noise(model, rows, sigma=0.5, seed=1)
    noise = model.normalizer(step.noisy) - model.normalizer(rows)
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    torch.testing.assert_close(step.noisy, add_noise(model, rows, sigma=0.5, seed=1).noisy)
    assert not torch.equal(step.noisy, add_noise(model, rows, sigma=0.5, seed=2).noisy)


def test_hardly_any_noise_is_answered_with_the_rows(model):
    rows = 3 + 2 * torch.randn(50, SPEC.dim)
    torch.testing.assert_close(add_noise(model, rows, sigma=1e-4).estimate, rows, atol=1e-2, rtol=0)


def test_a_conditional_model_is_refused():
    model = LatentDiffusion(spec=SPEC.to_dict(), conditions={"reward": 1}, width=16, num_layers=1)
    with pytest.raises(ConfigError, match="the model is conditioned on reward"):
        denoising_steps(model, 3, seed=0)
    with pytest.raises(ConfigError, match="the model is conditioned on reward"):
        add_noise(model, torch.zeros(2, SPEC.dim), 0.5)
