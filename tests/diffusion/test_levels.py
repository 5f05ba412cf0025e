"""Noise levels from the data: what they are made of, and that they suffice."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_synther.diffusion.levels import LARGEST, SMALLEST, START_ERROR, data_levels
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.errors import ConfigError
from lightning_synther.transition import TransitionSpec
from tests.diffusion.gaussian import denoiser, draw

SPEC = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plane(num_rows: int, dim: int, intrinsic: int) -> torch.Tensor:
    """Standardised rows in a random plane of ``intrinsic`` dimensions."""
    rows = normal(num_rows, intrinsic) @ normal(intrinsic, dim, seed=1)
    return rows / rows.std(0)


@pytest.mark.parametrize("intrinsic", [2, 4, 6])
def test_the_intrinsic_dimension_of_a_plane(intrinsic):
    assert data_levels(plane(8000, 12, intrinsic)).intrinsic_dim == pytest.approx(intrinsic, rel=0.2)


def test_more_data_resolve_more():
    few, many = (data_levels(plane(n, 12, 2)) for n in (600, 2400))
    assert 1.05 * SMALLEST < many.sigma_min < few.sigma_min < 0.95 * LARGEST
    # r ~ N**(-1 / m), and the rule takes r / sqrt(2 m)
    assert few.neighbour_distance / many.neighbour_distance == pytest.approx(4 ** (1 / 2), rel=0.2)
    assert many.sigma_min == pytest.approx(
        many.neighbour_distance / math.sqrt(2 * many.intrinsic_dim), rel=1e-6
    )


def test_the_bounds_hold():
    assert data_levels(normal(200, 50)).sigma_min == pytest.approx(LARGEST, rel=0.03)
    line = torch.linspace(-(3**0.5), 3**0.5, 5000)[:, None].repeat(1, 4)
    assert data_levels(line).sigma_min == pytest.approx(SMALLEST, rel=0.03)
    assert data_levels(torch.zeros(20, 4)).sigma_min == LARGEST  # constant columns only


def test_repeated_rows_are_no_neighbours():
    rows = plane(2000, 12, 5)
    once, twice = data_levels(rows), data_levels(rows.repeat_interleave(2, dim=0))
    assert twice.sigma_min == pytest.approx(once.sigma_min, rel=0.15)


def test_levels_scale_with_the_data():
    """A min-max normaliser leaves columns of smaller deviation."""
    rows = plane(2000, 12, 3)
    whole, third = data_levels(rows), data_levels(rows / 3)
    for name in ("sigma_min", "sigma_max", "neighbour_distance", "extent"):
        assert getattr(whole, name) == pytest.approx(3 * getattr(third, name), rel=1e-3)


def test_the_widest_direction_sets_the_largest_level():
    assert data_levels(normal(5000, 20)).sigma_max == pytest.approx(5, rel=0.1)
    alike = (0.9**0.5 * normal(5000, 1) + 0.1**0.5 * normal(5000, 20, seed=1)).contiguous()
    assert data_levels(alike).extent == pytest.approx((1 + 19 * 0.9) ** 0.5, rel=0.05)


def test_samples_with_levels_from_the_data_have_its_covariance():
    """A sampler that adds noise forgets where it started; one that does not keeps that error and no more."""
    covariance = torch.full((8, 8), 0.9, dtype=torch.float64) + 0.1 * torch.eye(8).double()
    rows = normal(8000, 8) @ torch.linalg.cholesky(covariance).T.float()
    levels = data_levels(rows)
    exact = denoiser(torch.zeros(8).double(), covariance)
    shares = {}
    for name in ("dpmpp_2m_sde", "heun"):
        sampler = DiffusionSampler(name, 40, levels.sigma_min, levels.sigma_max)
        samples = draw(sampler, exact, dim=8)
        shares[name] = samples.sum(1).var().item() / covariance.sum().item()
        torch.testing.assert_close(samples.var(0), torch.ones(8).double(), rtol=0, atol=0.07)
    assert shares["dpmpp_2m_sde"] == pytest.approx(1, abs=0.02)
    assert 1 - 3 * START_ERROR < shares["heun"] < 1 - START_ERROR


def build(**kwargs) -> LatentDiffusion:
    return LatentDiffusion(SPEC.to_dict(), width=16, num_layers=1, num_sampling_steps=3, **kwargs)


def test_a_model_with_levels_from_the_data(tmp_path):
    rows = normal(500, SPEC.dim) * 7 + 3
    model = build(sigma_min="auto", sigma_max="auto")
    with pytest.raises(ConfigError, match="is 'auto', but the model has seen no data: call fit_normalizer"):
        model.sample(4, seed=0)
    model.fit_normalizer(rows)
    levels = data_levels((rows - rows.mean(0)) / rows.std(0))
    assert model.sampler.sigma_min == pytest.approx(levels.sigma_min, rel=1e-3)
    assert model.sampler.sigma_max == pytest.approx(levels.sigma_max, rel=1e-3)
    loaded = build(sigma_min="auto", sigma_max="auto")
    loaded.load_state_dict(model.state_dict())
    assert loaded.sampler == model.sampler
    half = build(sigma_min=0.03, sigma_max="auto")
    half.fit_normalizer(rows)
    assert (half.sampler.sigma_min, half.sampler.sigma_max) == (0.03, model.sampler.sigma_max)


def test_given_levels_need_no_data():
    published = build(sigma_min=0.002, sigma_max=80.0)
    assert (published.sampler.sigma_min, published.sampler.sigma_max) == (0.002, 80.0)
    assert "data_sigmas" not in published.state_dict()


def test_the_default_is_few_steps_between_levels_of_the_data():
    model = LatentDiffusion(SPEC.to_dict(), width=16, num_layers=1)
    model.fit_normalizer(normal(500, SPEC.dim))
    assert (model.sampler.name, model.sampler.num_evaluations) == ("dpmpp_2m_sde", 12)
    assert model.sampler.sigma_min == pytest.approx(0.1, rel=0.05)
