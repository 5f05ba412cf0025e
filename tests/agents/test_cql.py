"""Conservative Q-Learning: the losses by hand, and one trunk for all candidates."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_synther.agents import CQL, cql
from tests.agents.test_algorithms import build
from tests.agents.tiny import make_batch


def test_gap_by_hand() -> None:
    q_data = torch.tensor([[[1.0], [2.0]]])
    q = torch.tensor([[[0.0, 0.0], [4.0, 4.0]]])
    t = 2.0  # t log(2 exp(q / t)) - q_data
    expected = [t * math.log(2) - 1, 4 + t * math.log(2) - 2]
    torch.testing.assert_close(cql.gap(q, q_data, t), torch.tensor([sum(expected) / 2]))
    torch.testing.assert_close(cql.gap(q, q_data, t, (0.5, 1.0)), torch.tensor([0.75]))


def test_importance_sampling_estimates_the_integral() -> None:
    # sum over actions / density is unbiased for the integral of exp Q: here exp(3 a) over (-1, 1)
    generator = torch.Generator().manual_seed(0)
    action = 2 * torch.rand(1, 100_000, 1, generator=generator) - 1
    drawn = cql.Candidates(action, torch.full((1, 100_000), -math.log(2)))
    empty = cql.Candidates(action[:, :0], drawn.log_density[:, :0])
    joined = cql.candidates(action, empty, empty)
    torch.testing.assert_close(joined.log_density, drawn.log_density)
    q = 3 * action.squeeze(-1)[None]
    contrasted = cql.contrast(q[..., :1], q, joined.log_density, importance_sampling=True)
    integral = torch.logsumexp(contrasted, -1).exp() / action.shape[1]
    torch.testing.assert_close(integral, torch.tensor([[2 / 3 * math.sinh(3)]]), rtol=0.02, atol=0)


@pytest.mark.parametrize(("penalty", "direction"), [(2.0, 1), (-1.0, -1)])
def test_multiplier_grows_above_its_threshold(penalty: float, direction: int) -> None:
    log_multiplier = torch.zeros((), requires_grad=True)
    weighted = torch.full((2,), penalty, requires_grad=True)
    cql.multiplier_loss(log_multiplier, weighted, threshold=0.5).backward()
    assert weighted.grad is None
    assert torch.sign(-log_multiplier.grad) == direction
    assert cql.multiplier(torch.tensor(99.0)) == 1e6


def test_trunks_run_once_for_an_update() -> None:
    agent, rows = build(CQL, "pixels", ""), []

    def count(_: nn.Module, inputs: tuple[torch.Tensor], output: Any) -> None:
        rows.append(len(output))

    agent.critic.trunk.register_forward_hook(count)
    agent.update(make_batch(0))
    assert rows == [8, 8], "once in the critic's step, once in the actor's, on a batch of 8"
