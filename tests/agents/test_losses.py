"""Known answers of targets and losses."""

from __future__ import annotations

import torch

from lightning_synther.agents import drqv2
from lightning_synther.agents.bc import bc_loss
from lightning_synther.agents.optimization import frozen
from lightning_synther.agents.targets import make_target, soft_update, td_target

Q = torch.tensor([[[1.0], [4.0]], [[3.0], [-2.0]]])  # two critics, two transitions


def test_target_takes_the_smaller_critic_and_stops_at_a_true_end() -> None:
    target = td_target(torch.tensor([[0.5], [0.5]]), torch.tensor([[0.9], [0.0]]), Q)
    torch.testing.assert_close(target, torch.tensor([[1.4], [0.5]]))


def test_losses() -> None:
    torch.testing.assert_close(drqv2.critic_loss(Q, torch.ones(2, 1)), torch.tensor(4.5 + 6.5))
    torch.testing.assert_close(drqv2.actor_loss(Q), torch.tensor(0.5))
    torch.testing.assert_close(drqv2.mean_magnitude(Q), torch.tensor(1.5))
    torch.testing.assert_close(drqv2.value_weight(3.0, torch.tensor(1.5)), torch.tensor(2.0))
    torch.testing.assert_close(
        bc_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])), torch.tensor(0.5)
    )


def test_soft_update_moves_every_parameter_and_no_gradient_flows() -> None:
    online = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    target = make_target(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2)), online)
    before = [p.clone() for p in target.parameters()]
    with torch.no_grad():
        for p in online.parameters():
            p.add_(1.0)
    soft_update(target, online, 0.25)
    for old, new in zip(before, target.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
        assert not new.requires_grad


def test_frozen_passes_gradients_to_inputs_only() -> None:
    layer, x = torch.nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    layer.bias.requires_grad_(False)
    with frozen(layer):
        y = layer(x)
    y.backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad
