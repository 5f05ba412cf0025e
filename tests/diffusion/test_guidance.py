"""Guidance where its result is known: on Gaussians, and call by call."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from lightning_synther.diffusion.conditioning import Prompt
from lightning_synther.diffusion.guidance import Guidance, check_guidance, classifier_free, gradient_guided
from lightning_synther.diffusion.samplers import DiffusionSampler, SamplerName
from lightning_synther.errors import ConfigError
from tests.diffusion.gaussian import COVARIANCE, MEAN, denoiser, draw

DIRECTION = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
FAST = {
    "stochastic_heun": 120,
    "heun": 30,
    "euler": 250,
    "dpmpp_2m": 40,
    "dpmpp_2m_sde": 40,
}


def linear(x, variance):
    return x @ DIRECTION.to(x)


@pytest.mark.parametrize("name", get_args(SamplerName))
def test_the_gradient_of_a_linear_density_shifts_the_mean_by_the_exact_amount(name):
    """p(x) exp(w g.x) of N(mean, C) is N(mean + w C g, C)."""
    guided = gradient_guided(denoiser(MEAN, COVARIANCE), linear, 0.8, through_network=True)
    samples = draw(DiffusionSampler(name, FAST[name], sigma_min=0.02, sigma_max=400.0), guided, 10_000)
    expected = MEAN + 0.8 * COVARIANCE @ DIRECTION
    torch.testing.assert_close(samples.mean(0), expected, rtol=0, atol=0.06)
    torch.testing.assert_close(samples.T.cov(), COVARIANCE, rtol=0.06, atol=0.09)


def test_the_guided_denoiser_is_that_of_the_shifted_gaussian():
    guided = gradient_guided(denoiser(MEAN, COVARIANCE), linear, 0.8, through_network=True)
    shifted = denoiser(MEAN + 0.8 * COVARIANCE @ DIRECTION, COVARIANCE)
    x = torch.randn(7, 3, dtype=torch.float64)
    for sigma in (0.01, 1.0, 30.0):
        level = torch.tensor(sigma, dtype=torch.float64)
        torch.testing.assert_close(guided(x, level), shifted(x, level))


@pytest.mark.parametrize("through_network", [False, True])
def test_on_independent_columns_the_network_need_not_be_differentiated(through_network):
    unit = denoiser(torch.zeros(3).double(), torch.eye(3).double())
    guided = gradient_guided(unit, linear, 1.5, through_network=through_network)
    shifted = denoiser(1.5 * DIRECTION, torch.eye(3).double())
    x, level = torch.randn(7, 3, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    torch.testing.assert_close(guided(x, level), shifted(x, level))


def test_a_gaussian_density_that_uses_the_uncertainty_gives_the_product_of_gaussians():
    """N(0, 1) times N(x; 1, 0.1**2): the posterior of Bayes' rule, without overshooting at large noise."""
    variance, target = 0.01, 1.0

    def log_density(x, uncertainty):
        return -0.5 * ((x - target) ** 2 / (variance + uncertainty)).sum(-1)

    unit = denoiser(torch.zeros(1).double(), torch.eye(1).double())
    guided = gradient_guided(unit, log_density)
    samples = draw(DiffusionSampler("dpmpp_2m_sde", 60, sigma_min=0.005), guided, 10_000, dim=1)
    assert samples.mean().item() == pytest.approx(target / (1 + variance), abs=0.01)
    assert samples.std().item() == pytest.approx((variance / (1 + variance)) ** 0.5, abs=0.01)


@pytest.mark.parametrize("name", get_args(SamplerName))
def test_guidance_reaches_every_evaluation(name):
    levels = []

    def log_density(x, variance):
        levels.append(float(variance))
        return x.sum(-1)

    sampler = DiffusionSampler(name, 7)
    guided = gradient_guided(lambda x, sigma: x / (1 + sigma**2), log_density)
    with torch.inference_mode():  # as in Trainer.predict
        sampler(guided, torch.randn(4, 3), lambda i: torch.randn(4, 3))
    assert len(levels) == sampler.num_evaluations
    assert all(level > 0 for level in levels)


def conditional(x, sigma, cond):
    """Data N(c, 1) with the condition c, N(0, 1) without (flag 0)."""
    mean = cond[:, :1] * cond[:, 1:]
    return mean + (x - mean) / (1 + sigma**2)


def test_classifier_free_guidance_on_gaussians_of_one_width():
    condition, absent = torch.tensor([[2.0, 1.0]]), torch.zeros(1, 2)
    for weight in (0.0, 0.5, 1.0, 2.5):
        guided = classifier_free(conditional, condition.expand(9, 2), absent.expand(9, 2), weight)
        x, sigma = torch.randn(9, 1), torch.tensor(0.8)
        expected = conditional(x, sigma, torch.tensor([[2.0 * weight, 1.0]]).expand(9, 2))
        torch.testing.assert_close(guided(x, sigma), expected)


@pytest.mark.parametrize(("weight", "rows"), [(0.0, 5), (1.0, 5), (2.0, 10)])
def test_weight_one_is_the_plain_conditional_model_at_its_price(weight, rows):
    seen = []

    def network(x, sigma, cond):
        seen.append(len(x))
        return conditional(x, sigma, cond)

    condition = torch.tensor([[2.0, 1.0]]).expand(5, 2)
    guided = classifier_free(network, condition, torch.zeros(5, 2), weight)
    x, sigma = torch.randn(5, 1), torch.tensor(0.8)
    result = guided(x, sigma)
    assert seen == [rows]
    if weight == 1:
        assert torch.equal(result, conditional(x, sigma, condition))


def test_guidance_without_a_conditional_model_is_refused():
    for guidance in (Guidance(weight=2.0), Guidance(prompt=Prompt("top"))):
        with pytest.raises(ConfigError, match="but the model has no conditions: train it with some"):
            check_guidance(guidance, conditional=False, condition_dropout=0.25)
    check_guidance(Guidance(log_density=linear), conditional=False, condition_dropout=0.25)


def test_an_unconditional_model_is_needed_for_weights_other_than_one():
    with pytest.raises(ConfigError, match="condition_dropout 0 and knows no unconditional distribution"):
        check_guidance(Guidance(weight=1.5), conditional=True, condition_dropout=0.0)
    check_guidance(Guidance(weight=1.0), conditional=True, condition_dropout=0.0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "best"}, "prompt 'best' is unknown: choose from data, top, values"),
        ({"kind": "top", "fraction": 0.0}, "prompt_fraction is 0.0: give a share above 0"),
        ({"kind": "values"}, "give values with the prompt 'values', and only there"),
        ({"kind": "top", "values": (1.0,)}, "give values with the prompt 'values', and only there"),
    ],
)
def test_prompts_that_cannot_be(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Prompt(**settings)


def test_the_description_has_no_memory_address():
    guidance = Guidance(log_density=linear, label="policy a1b2")
    assert repr(guidance) == "Guidance(weight=1.0, prompt=None, density=('policy a1b2', 1.0, False))"
