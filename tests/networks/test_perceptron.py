"""The perceptron as one function: equal to its layers one after another, forward and backward."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_synther.networks.ensemble import EnsembleLinear
from lightning_synther.networks.heads import MLP, ensemble_of

KINDS = {"one": torch.nn.Linear, "ensemble": ensemble_of(3)}


def plain(mlp, x):
    mlp.twice_differentiable = True
    try:
        return mlp(x)
    finally:
        mlp.twice_differentiable = False


def made(kind, layer_norm, num_layers, dtype=torch.float64):
    torch.manual_seed(0)
    mlp = MLP(4, 2, 8, num_layers, layer_norm, linear=KINDS[kind]).to(dtype)
    for parameter in mlp.parameters():  # scales of LayerNorm that differ from 1
        parameter.data += 0.1 * torch.randn_like(parameter)
    return mlp


@settings(deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(list(KINDS)),
    layer_norm=st.booleans(),
    num_layers=st.integers(0, 3),
    own_inputs=st.booleans(),
    frozen=st.booleans(),
    x_grad=st.booleans(),
)
def test_it_is_the_layers_one_after_another(kind, layer_norm, num_layers, own_inputs, frozen, x_grad):
    mlp = made(kind, layer_norm, num_layers)
    shape = (3, 5, 4) if own_inputs and kind == "ensemble" else (5, 4)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=x_grad)
    mlp.requires_grad_(not frozen)
    wanted = [x] * x_grad + list(mlp.parameters()) * (not frozen)
    results = []
    for forward in (mlp, lambda x: plain(mlp, x)):
        y = forward(x)
        weights = torch.arange(y.numel(), dtype=torch.float64).reshape(y.shape) / 10
        results.append([y, *(torch.autograd.grad((y * weights).sum(), wanted) if wanted else ())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert results[0][0].requires_grad == bool(wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer_norm", [False, True])
def test_under_autocast_hidden_layers_are_bf16_and_all_else_float32(kind, layer_norm):
    mlp = made(kind, layer_norm, 2, torch.float32)
    x = torch.randn(64, 4, requires_grad=True)
    exact = mlp(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = mlp(x)
    assert y.dtype == torch.float32
    assert 0 < (y - exact).abs().max() < 0.03 * exact.abs().max() + 0.03
    grads = torch.autograd.grad(y.square().sum(), [x, *mlp.parameters()])
    wanted = torch.autograd.grad(exact.square().sum(), [x, *mlp.parameters()])
    for ours, theirs in zip(grads, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_without_gradients_nothing_is_kept():
    mlp = made("ensemble", True, 2)
    with torch.no_grad():
        assert mlp(torch.randn(5, 4, dtype=torch.float64)).grad_fn is None
    assert type(mlp(torch.randn(5, 4, dtype=torch.float64)).grad_fn).__name__ == "_PerceptronBackward"


def test_differentiating_twice_needs_the_layers():
    mlp = made("ensemble", False, 2)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="set its attribute twice_differentiable to True"):
        torch.autograd.grad(mlp(x).sum(), x, create_graph=True)
    second = torch.autograd.grad(plain(mlp, x).sum(), x, create_graph=True)[0]
    second.square().sum().backward()
    assert isinstance(mlp[0], EnsembleLinear)
    assert mlp[0].weight.grad is not None
