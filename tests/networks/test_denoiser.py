from __future__ import annotations

import pytest
import torch

from lightning_synther.networks.denoiser import FourierFeatures, ResidualMLP


def test_one_noise_level_for_the_batch_equals_one_for_each_row():
    torch.manual_seed(0)
    net = ResidualMLP(5, width=32, num_layers=2)
    x = torch.randn(7, 5)
    torch.testing.assert_close(net(x, torch.full((1,), 0.3)), net(x, torch.full((7,), 0.3)))


def test_random_frequencies_are_saved_but_not_trained():
    fixed, learned = FourierFeatures(4, learned=False), FourierFeatures(4, learned=True)
    assert not list(fixed.parameters())
    assert [name for name, _ in learned.named_parameters()] == ["frequencies"]
    assert fixed.state_dict().keys() == learned.state_dict().keys()


def test_condition_changes_the_output_and_its_length_is_checked():
    torch.manual_seed(0)
    net = ResidualMLP(5, width=32, num_layers=1, cond_dim=2)
    x, t = torch.randn(3, 5), torch.zeros(3)
    assert not torch.allclose(net(x, t, torch.zeros(3, 2)), net(x, t, torch.ones(3, 2)))
    with pytest.raises(RuntimeError):
        net(x, t)


def test_bfloat16_weights_stay_near_float32():
    """The Fourier features are computed in float32 even then: their phase has no digits to lose."""
    torch.manual_seed(0)
    net = ResidualMLP(5, width=64, num_layers=2)
    x, t = torch.randn(9, 5), torch.linspace(-1.5, 1.1, 9)
    reference = net(x, t)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.to(torch.bfloat16)
    ours = net(x, t)
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - reference).abs().max() < 0.02 * reference.abs().max()
