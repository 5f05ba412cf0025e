"""EDAC: the diversity term against the pairs written out, and what it needs."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from lightning_synther.agents import EDAC, edac
from lightning_synther.errors import ConfigError
from tests.agents.test_algorithms import build
from tests.agents.tiny import make_batch


def test_diversity_loss_is_the_sum_over_pairs() -> None:
    gradients = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = itertools.permutations(gradients, 2)
    expected = sum(F.cosine_similarity(a, b, dim=-1) for a, b in pairs).mean() / 4
    torch.testing.assert_close(edac.diversity_loss(gradients), expected)
    torch.testing.assert_close(edac.diversity_loss(gradients[:1].expand(5, -1, -1)).item(), 5.0)


def test_action_gradients_are_each_critics_own() -> None:
    agent = build(EDAC, "states", "")
    batch = make_batch(0, shape=(5,))
    action = batch.action.expand(4, -1, -1).requires_grad_()
    gradients = edac.action_gradients(agent.critic(batch.observation, action), action)
    shared = batch.action.clone().requires_grad_()
    q = agent.critic(batch.observation, shared)
    for e in range(4):
        (expected,) = torch.autograd.grad(q[e].sum(), shared, retain_graph=True)
        torch.testing.assert_close(gradients[e], expected)


def test_the_diversity_term_trains_the_critics_apart() -> None:
    def diversity_after(eta: float) -> float:
        agent = build(EDAC, "states", "", eta=eta, lr=1e-3)
        for _ in range(60):
            metrics = agent.update(make_batch(0, shape=(5,)))
        return metrics["critic_diversity"].item()

    assert diversity_after(10.0) < diversity_after(0.0) - 0.5


def test_one_critic_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_critics is 1: the diversity of an ensemble needs at least 2"):
        build(EDAC, "states", "", num_critics=1)
