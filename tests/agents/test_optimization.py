"""The agents' Adam is torch's, whatever was loaded or left out in between."""

import copy

import pytest
import torch

from lightning_synther.agents.optimization import FusedAdam


def parameters():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in ((3, 4), (4,), ())]


def give_gradients(ours, theirs, step, skip=()):
    generator = torch.Generator().manual_seed(step)
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        grad = torch.randn(a.shape, generator=generator)
        a.grad, b.grad = (None, None) if index in skip else (grad, grad.clone())


@pytest.mark.parametrize("skip", [(), (1,)])
def test_its_steps_are_those_of_torch(skip):
    ours, theirs = parameters(), parameters()
    optimizer, reference = FusedAdam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    for step in range(8):
        give_gradients(ours, theirs, step, skip if step < 3 else ())
        if step == 5:  # a schedule
            optimizer.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 0.02
        optimizer.step()
        reference.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert optimizer._collected, "the lean step was never taken"


def test_it_goes_on_from_a_loaded_state():
    ours, theirs = parameters(), parameters()
    optimizer, reference = FusedAdam(ours, lr=0.1), FusedAdam(theirs, lr=0.1)
    for step in range(4):
        give_gradients(ours, theirs, step)
        optimizer.step()
        reference.step()
    saved, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in ours]
    give_gradients(ours, theirs, 4)
    optimizer.step()
    optimizer.load_state_dict(saved)
    for parameter, weight in zip(ours, weights, strict=True):
        parameter.data.copy_(weight)
    for step in range(4, 7):
        give_gradients(ours, theirs, step)
        optimizer.step()
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_closure_is_called_first():
    [weight, *_] = parameters()
    optimizer = FusedAdam([weight], lr=0.1)

    def closure():
        weight.grad = torch.ones_like(weight)
        return 3.0

    before = weight.detach().clone()
    assert optimizer.step(closure) == optimizer.step(closure) == 3.0
    torch.testing.assert_close(weight, before - 0.2, rtol=0, atol=1e-5)
