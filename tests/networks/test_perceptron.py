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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("frozen", range(4))
def test_every_parameter_may_be_frozen_by_itself(kind, layer_norm, frozen):
    """Every second weight, every second bias, and so on: the others get the layers' own gradients."""
    mlp, x = made(kind, layer_norm, 2), torch.randn(5, 4, dtype=torch.float64)
    for number, parameter in enumerate(mlp.parameters()):
        parameter.requires_grad_(number % 4 != frozen)
    results = []
    for forward in (mlp, lambda x: plain(mlp, x)):
        mlp.zero_grad()
        forward(x).square().sum().backward()
        results.append([parameter.grad for parameter in mlp.parameters()])
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("num_layers", [0, 2])
def test_a_kept_graph_gives_its_gradients_again(kind, layer_norm, num_layers):
    mlp, x = made(kind, layer_norm, num_layers), torch.randn(5, 4, dtype=torch.float64)
    loss = mlp(x).square().sum()
    first = torch.autograd.grad(loss, list(mlp.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(mlp.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_after_the_backward_pass_no_activation_is_kept():
    mlp = made("ensemble", True, 2)
    y = mlp(torch.randn(5, 4, dtype=torch.float64))
    assert len(y.grad_fn.saved_tensors) > 1 + len(list(mlp.parameters()))
    y.sum().backward()
    with pytest.raises(RuntimeError, match="already been freed"):
        _ = y.grad_fn.saved_tensors
    assert vars(y.grad_fn) == {"layer_norm": True}


def test_differentiating_twice_needs_the_layers():
    mlp = made("ensemble", False, 2)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="set its attribute twice_differentiable to True"):
        torch.autograd.grad(mlp(x).sum(), x, create_graph=True)
    second = torch.autograd.grad(plain(mlp, x).sum(), x, create_graph=True)[0]
    second.square().sum().backward()
    assert isinstance(mlp[0], EnsembleLinear)
    assert mlp[0].weight.grad is not None
