"""Policy guidance on data where the guided distribution is known."""

from __future__ import annotations

import pytest
import torch

from lightning_synther.agents.modules import BC
from lightning_synther.diffusion.guidance import gradient_guided
from lightning_synther.diffusion.normalizer import StandardNormalizer
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import ConfigError
from lightning_synther.synthesis.policy_guidance import policy_log_density
from lightning_synther.transition import TransitionSpec
from tests.diffusion.gaussian import draw

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.99)


def fitted_normalizer(action_std=0.5):
    """Rows of mean 1 and deviation 2, actions of mean 0 and deviation ``action_std``."""
    rows = 2 * torch.randn(4000, SPEC.dim, generator=torch.Generator().manual_seed(0)) + 1
    action = SPEC.fields["action"]
    rows[:, action] = (rows[:, action] - 1) / 2 * action_std
    normalizer = StandardNormalizer(SPEC.dim)
    normalizer.fit(ColumnStatistics.of(rows))
    return normalizer


def agent_on_states(scale=3.0):
    torch.manual_seed(1)
    agent = BC(observation="states", observation_dim=3, action_dim=2, hidden_dim=16)
    agent.actor.policy[-1].weight.data *= scale
    agent.actor.policy[-1].bias.data = torch.tensor([0.6, -0.3])
    return agent


def guided_rows(agent, normalizer, **settings):
    density = policy_log_density(agent, normalizer, SPEC, **settings)
    guided = gradient_guided(lambda x, sigma: x / (1 + sigma**2), density)
    sampler = DiffusionSampler("dpmpp_2m_sde", 40, sigma_min=0.01, sigma_max=20.0)
    return SPEC.unflatten(normalizer.inverse(draw(sampler, guided, 4000, SPEC.dim).float()))


@pytest.mark.parametrize("weight", [0.0, 1.0, 4.0])
def test_actions_are_the_product_of_data_and_policy(weight):
    """a ~ N(0, 0.5**2), times N(pi, std**2)**weight: Bayes' rule says where it lies."""
    normalizer, agent, std = fitted_normalizer(), agent_on_states(scale=0.0), 0.4
    s, a, *_ = guided_rows(agent, normalizer, std=std, weight=weight)
    share = weight * 0.25 / (weight * 0.25 + std**2)
    residual = a - share * agent.policy(s)
    torch.testing.assert_close(residual.mean(0), torch.zeros(2), rtol=0, atol=0.03)
    spread = ((1 - share) * 0.25) ** 0.5
    torch.testing.assert_close(residual.std(0), torch.full((2,), spread), rtol=0, atol=0.03)
    torch.testing.assert_close(s.std(0), torch.full((3,), 2.0), rtol=0, atol=0.1)  # states are left alone


def test_actions_follow_the_state():
    normalizer, agent = fitted_normalizer(), agent_on_states(scale=10.0)
    far, near = (guided_rows(agent, normalizer, std=0.3, weight=weight) for weight in (0.0, 5.0))
    distance = [(rows.action - agent.policy(rows.observation)).abs().mean() for rows in (far, near)]
    assert distance[1] < 0.3 * distance[0]
    centred = [value - value.mean(0) for value in (near.action, agent.policy(near.observation))]
    assert torch.cosine_similarity(*centred, dim=0).max() > 0.8  # the other policy hardly depends on s


def test_policies_of_other_sizes_are_refused():
    other = BC(observation="states", observation_dim=4, action_dim=2, hidden_dim=8)
    with pytest.raises(ConfigError, match=r"takes observations \(4,\) and 2 action dimensions"):
        policy_log_density(other, fitted_normalizer(), SPEC)


def test_wrong_numbers_are_refused():
    for wrong in ({"std": 0.0}, {"weight": -1.0}):
        with pytest.raises(ConfigError, match="must be above 0"):
            policy_log_density(agent_on_states(), fitted_normalizer(), SPEC, **wrong)
