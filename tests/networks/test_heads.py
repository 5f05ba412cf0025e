"""Ensembles equal their members, the published layout round-trips, perceptrons of any size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_synther.networks.ensemble import (
    EnsembleLayerNorm,
    EnsembleLinear,
    stack_members,
    unstack_members,
)
from lightning_synther.networks.heads import (
    MLP,
    Critic,
    ResidualBlock,
    critic_from_reference,
    critic_to_reference,
    ensemble_of,
    orthogonal_init,
)
from lightning_synther.networks.trunk import WholeVector


def perturb(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_ensemble_layer_equals_its_members(num: int, n_in: int, n_out: int, shared: bool) -> None:
    members = [nn.Linear(n_in, n_out) for _ in range(num)]
    ensemble = EnsembleLinear(num, n_in, n_out)
    ensemble.load_state_dict(stack_members([member.state_dict() for member in members]))
    x = torch.randn(3, n_in) if shared else torch.randn(num, 3, n_in)
    expected = torch.stack([member(x if shared else x[i]) for i, member in enumerate(members)])
    torch.testing.assert_close(ensemble(x), expected)


def test_ensemble_norm_equals_its_members() -> None:
    members = [nn.LayerNorm(4) for _ in range(3)]
    for member in members:
        perturb(member)
    ensemble = EnsembleLayerNorm(3, 4)
    ensemble.load_state_dict(stack_members([member.state_dict() for member in members]))
    x = torch.randn(3, 5, 4)
    expected = torch.stack([member(x[i]) for i, member in enumerate(members)])
    torch.testing.assert_close(ensemble(x), expected)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_critic_equals_separate_networks(num_layers: int, layer_norm: bool) -> None:
    critic = Critic(WholeVector(5), MLP(7, 1, 8, num_layers, layer_norm, ensemble_of(4)))
    perturb(critic)
    features, action = torch.randn(6, 5), torch.randn(6, 2)
    q = critic(features, action)
    assert q.shape == (4, 6, 1)
    for i, state in enumerate(unstack_members(critic.q.state_dict())):
        single = MLP(7, 1, 8, num_layers, layer_norm)
        single.load_state_dict(state)
        torch.testing.assert_close(q[i], single(torch.cat([features, action], -1)), rtol=1e-4, atol=1e-4)


def test_reference_layout_round_trips() -> None:
    critic = Critic(WholeVector(3), MLP(5, 1, 4, linear=ensemble_of(11)))
    state = critic.state_dict()
    reference = critic_to_reference(state)
    assert reference["Q11.4.weight"].shape == (1, 4)
    back = critic_from_reference(reference)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_orthogonal_init_treats_members_apart() -> None:
    layer = EnsembleLinear(3, 8, 8)
    layer.apply(orthogonal_init)
    for weight in layer.weight:
        torch.testing.assert_close(weight @ weight.T, torch.eye(8), rtol=1e-4, atol=1e-4)
    assert not torch.equal(layer.weight[0], layer.weight[1])
    assert not layer.bias.any()


def test_last_layer_stays_float32_under_autocast() -> None:
    head = MLP(4, 1, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head[0](torch.zeros(1, 4)).dtype == torch.bfloat16
        assert head(torch.zeros(1, 4)).dtype == torch.float32


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_residual_critic_equals_separate_networks(num_layers: int) -> None:
    critic = Critic(WholeVector(5), MLP(7, 1, 8, num_layers, linear=ensemble_of(4), residual=True))
    perturb(critic)
    features, action = torch.randn(6, 5), torch.randn(6, 2)
    q = critic(features, action)
    assert q.shape == (4, 6, 1)
    for i, state in enumerate(unstack_members(critic.q.state_dict())):
        single = MLP(7, 1, 8, num_layers, residual=True)
        single.load_state_dict(state)
        torch.testing.assert_close(q[i], single(torch.cat([features, action], -1)), rtol=1e-4, atol=1e-3)


def test_a_residual_block_by_hand() -> None:
    block = ResidualBlock(2)
    with torch.no_grad():
        block.widen.weight.zero_()
        block.widen.weight[0] = torch.tensor([1.0, -1.0])
        block.widen.bias.zero_()
        block.narrow.weight.zero_()
        block.narrow.weight[1, 0] = 10.0
        block.narrow.bias.copy_(torch.tensor([0.5, 0.0]))
    h = torch.tensor([[3.0, 1.0], [1.0, 3.0]])
    normal = (1 + 1e-5) ** -0.5  # LayerNorm of (3, 1): 1 and -1, over the deviation 1
    expected = torch.tensor([[3.5, 1 + 10 * 2 * normal], [1.5, 3.0]])  # the second one's ReLU is closed
    torch.testing.assert_close(block(h), expected)
    assert torch.equal(h, torch.tensor([[3.0, 1.0], [1.0, 3.0]])), "its input is left alone"


def test_residual_depth_starts_as_a_small_change() -> None:
    """Blocks add to the stream: with their last layers at zero the network is as if it had none."""
    deep, none = MLP(3, 2, 8, 4, residual=True), MLP(3, 2, 8, 0, residual=True)
    for block in deep:
        if isinstance(block, ResidualBlock):
            nn.init.zeros_(block.narrow.weight)
            nn.init.zeros_(block.narrow.bias)
    none.load_state_dict(
        {
            key: deep.state_dict()[f"{index}.{name}"]
            for key in none.state_dict()
            for number, name in [key.split(".")]
            for index in [{"0": 0, "1": 5, "2": 6}[number]]
        }
    )
    x = torch.randn(5, 3)
    torch.testing.assert_close(deep(x), none(x))
