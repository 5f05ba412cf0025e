"""Soft Actor-Critic: each loss against a value worked out by hand or by torch.distributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from lightning_synther.agents import sac


@settings(deadline=None, max_examples=30)
@given(mean=st.floats(-3, 3), log_std=st.floats(-4, 1), seed=st.integers(0, 99))
def test_squash_is_torch_distributions_tanh_gaussian(mean, log_std, seed):
    noise = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean, log_std = torch.full_like(noise, mean), torch.full_like(noise, log_std)
    action, log_prob = sac.squash(mean, log_std, noise)
    base = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    u = mean + log_std.exp() * noise
    torch.testing.assert_close(action, torch.tanh(u))
    expected = Normal(mean, log_std.exp()).log_prob(u) - base.transforms[0].log_abs_det_jacobian(u, u.tanh())
    torch.testing.assert_close(log_prob, expected.sum(-1, keepdim=True))


def test_squashed_density_integrates_to_one():
    # In one dimension the density of a = tanh(u) over (-1, 1), by the trapezoid rule in a.
    a = torch.linspace(-0.9999, 0.9999, 200_001, dtype=torch.float64)[:, None]
    mean, log_std = torch.full_like(a, 0.4), torch.full_like(a, -0.7)
    _, log_prob = sac.squash(mean, log_std, (a.atanh() - mean) / log_std.exp())
    assert math.isclose(torch.trapezoid(log_prob[:, 0].exp(), a[:, 0]).item(), 1.0, abs_tol=1e-4)


def test_log_prob_is_finite_where_tanh_saturates():
    _, log_prob = sac.squash(torch.full((1, 1), 30.0), torch.zeros(1, 1), torch.zeros(1, 1))
    # u = 30: log N(0) - 2 (log 2 - 30 - softplus(-60)) = -0.9189 - 1.3863 + 60
    torch.testing.assert_close(log_prob, torch.tensor([[60 - 0.5 * math.log(2 * math.pi) - 2 * math.log(2)]]))


def test_soft_target_takes_the_smaller_critic_and_the_entropy():
    target = sac.soft_target(
        reward=torch.tensor([[1.0], [2.0]]),
        discount=torch.tensor([[0.9], [0.0]]),
        next_q=torch.tensor([[[5.0], [7.0]], [[6.0], [3.0]]]),
        next_log_prob=torch.tensor([[-2.0], [4.0]]),
        temperature=torch.tensor(0.5),
    )
    # 1 + 0.9 (5 + 0.5 * 2); a discount of 0 leaves the reward alone
    torch.testing.assert_close(target, torch.tensor([[6.4], [2.0]]))


def test_actor_loss_by_hand():
    q = torch.tensor([[[1.0], [4.0]], [[3.0], [2.0]]])
    loss = sac.actor_loss(q, torch.tensor([[2.0], [-2.0]]), torch.tensor(0.1))
    torch.testing.assert_close(loss, torch.tensor((0.2 - 1 - 0.2 - 2) / 2))


@pytest.mark.parametrize(("log_prob", "direction"), [(5.0, 1), (-5.0, -1)])
def test_temperature_rises_when_entropy_is_below_its_target(log_prob, direction):
    log_temperature = torch.tensor(0.0, requires_grad=True)
    log_probs = torch.full((4, 1), log_prob, requires_grad=True)
    sac.temperature_loss(log_temperature, log_probs, target_entropy=-1.0).backward()
    # d/dlog t of -t (log pi + H) at t = 1; descent moves against it
    assert log_temperature.grad.item() == -(log_prob - 1.0)
    assert math.copysign(1, -log_temperature.grad.item()) == direction
    assert log_probs.grad is None
