"""Trunks: no copy of the feature map, and the published column order in the state_dict."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_synther.networks.encoders import DrQEncoder, map_shape
from lightning_synther.networks.trunk import FeatureMapLinear, Trunk


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_state_dict_is_that_of_a_linear_layer_on_the_flattened_map(c: int, h: int, w: int, out: int) -> None:
    layer, plain = FeatureMapLinear((c, h, w), out), torch.nn.Linear(c * h * w, out)
    layer.load_state_dict(plain.state_dict())
    maps = torch.randn(2, c, h, w)
    for memory in (torch.contiguous_format, torch.channels_last):
        actual = layer(maps.contiguous(memory_format=memory))
        torch.testing.assert_close(actual, plain(maps.flatten(1)))
    for key, value in plain.state_dict().items():
        assert torch.equal(layer.state_dict()[key], value)


def test_flattening_the_encoders_map_copies_nothing() -> None:
    features = DrQEncoder(image_size=21)(torch.zeros(2, 9, 21, 21, dtype=torch.uint8))
    assert features.permute(0, 2, 3, 1).flatten(1).data_ptr() == features.data_ptr()


def test_trunk_is_float32_under_autocast() -> None:
    encoder, trunk = DrQEncoder(image_size=21), Trunk(map_shape(21), 8)
    frames = torch.randint(0, 256, (4, 9, 21, 21), dtype=torch.uint8)
    exact = trunk(encoder(frames))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder(frames)
        rounded = trunk(features)
    assert features.dtype == torch.bfloat16
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05)
    assert exact.abs().max() < 1
