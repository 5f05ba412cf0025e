"""The folded first convolution, sizes, and memory layout."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.encoders import DrQEncoder, LatentEncoder, map_shape


@pytest.mark.parametrize("image_size", [15, 16, 64, 84])
def test_encoder_equals_the_published_formula(image_size: int) -> None:
    encoder = DrQEncoder(image_size, frame_stack=2)
    frames = torch.randint(0, 256, (2, 6, image_size, image_size), dtype=torch.uint8)
    published = copy.deepcopy(encoder.convnet)(frames / 255 - 0.5)
    actual = encoder(frames)
    assert actual.shape[1:] == published.shape[1:] == map_shape(image_size)
    torch.testing.assert_close(actual, published, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(f.square().sum(), encoder.parameters()) for f in [encoder(frames)]]
    convnet = copy.deepcopy(encoder.convnet)
    expected = torch.autograd.grad(convnet(frames / 255 - 0.5).square().sum(), convnet.parameters())
    for a, b in zip(gradients[0], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def test_84_pixels_give_the_published_39200_features() -> None:
    assert map_shape(84) == (32, 35, 35)


def test_weights_stay_channels_last_when_loaded_and_copied() -> None:
    encoder = DrQEncoder(21)
    encoder.load_state_dict({k: v.contiguous() for k, v in encoder.state_dict().items()})
    for network in (encoder, copy.deepcopy(encoder)):
        weight = network.convnet[2].weight
        assert weight.is_contiguous(memory_format=torch.channels_last)


def test_images_too_small_for_the_convolutions() -> None:
    with pytest.raises(ConfigError, match="at least 15 pixels"):
        DrQEncoder(14)


def test_latent_encoder_is_frozen_and_checks_its_frames() -> None:
    encoder = LatentEncoder(21, frame_stack=3, feature_dim=4)
    assert not any(p.requires_grad for p in encoder.parameters())
    z = encoder.encode(torch.zeros(2, 9, 21, 21, dtype=torch.uint8))
    assert z.shape == (2, 8)
    assert not z.requires_grad
    assert isinstance(encoder.critic_trunk, nn.Module)
    with pytest.raises(DataError, match=r"frames are \(9, 20, 21\)"):
        encoder.encode(torch.zeros(2, 9, 20, 21, dtype=torch.uint8))


def test_only_pixel_agents_have_an_encoder() -> None:
    with pytest.raises(DataError, match="give one of stage 1"):
        LatentEncoder.config_of({"observation": "states"}, {})
