"""Strips of frames show what they were given, each in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_synther.data.pictures import frames_figure
from lightning_synther.errors import DataError


def frames(count: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, channels, 8, 8)).astype(np.uint8)


def test_every_frame_is_in_its_place_with_names_and_titles():
    one, two = frames(3), torch.from_numpy(frames(3, 9))
    figure = frames_figure({"first": one, "second": two}, titles=["a", "b", "c"])
    assert len(figure.axes) == 6
    assert [axis.get_ylabel() for axis in figure.axes] == ["first", "", "", "second", "", ""]
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", "", "", ""]
    shown = [axis.images[0].get_array() for axis in figure.axes]
    np.testing.assert_array_equal(shown[1], one[1].transpose(1, 2, 0))
    np.testing.assert_array_equal(
        shown[5], two[2, -3:].permute(1, 2, 0).numpy(), "the newest frame of a stack"
    )


@pytest.mark.parametrize(
    ("strips", "titles", "sentence"),
    [
        ({"a": frames(2), "b": frames(3)}, None, "strips have different lengths"),
        ({"a": frames(2)}, ["1"], "'titles': 1"),
        ({"a": frames(2).astype(float)}, None, "'a' is float64 of shape"),
        ({"a": frames(2, 4)}, None, r"give one or more frames \(N, 3, H, W\) uint8"),
        ({"a": frames(0)}, None, "give one or more frames"),
    ],
)
def test_what_is_no_strip_of_frames_is_refused(strips, titles, sentence):
    with pytest.raises(DataError, match=sentence):
        frames_figure(strips, titles)
