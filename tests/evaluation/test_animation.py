"""A video is an animated PNG with the frames it was made of, as fast as asked for."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.animation import Video


def frames(count: int = 12, shade: int = 20) -> np.ndarray:
    """A grey square each, lighter from frame to frame."""
    return (
        np.full((count, 16, 16, 3), 0, np.uint8)
        + np.arange(count, dtype=np.uint8)[:, None, None, None] * shade
    )


def opened(video: Video) -> Image.Image:
    return Image.open(io.BytesIO(video.encode()))


def test_the_frames_come_back_in_order_and_time():
    image = opened(Video(frames(), fps=20, every=3))
    assert (image.format, image.n_frames, image.info["loop"]) == ("PNG", 4, 0)
    for number in range(4):
        image.seek(number)
        assert image.info["duration"] == 150
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - number * 60).max() <= 8


def test_a_notebook_gets_a_png_of_the_asked_width():
    data, size = Video(frames(), width=160)._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert size == {"width": 160, "height": 160}


def test_episodes_lie_beside_each_other_and_hold_their_last_frame():
    video = Video.beside(frames(3), frames(5), width=80)
    assert video.frames.shape == (5, 16, 32, 3)
    assert (video.frames[4, :, :16] == 40).all()
    assert (video.frames[4, :, 16:] == 80).all()
    assert video.width == 160


def test_it_is_saved_as_it_is_shown(tmp_path):
    Video(frames()).save(tmp_path / "video.png")
    assert (tmp_path / "video.png").read_bytes() == Video(frames()).encode()


@pytest.mark.parametrize(
    "wrong", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((4, 8, 8, 3)), np.zeros((4, 3, 8, 8), np.uint8)]
)
def test_what_is_no_video_is_refused(wrong):
    with pytest.raises(ConfigError, match="a video needs uint8 frames"):
        Video(wrong)


@pytest.mark.parametrize("setting", [{"fps": 0}, {"every": 0}])
def test_a_rate_that_cannot_be_is_refused(setting):
    with pytest.raises(ConfigError, match="give a positive rate and at least 1"):
        Video(frames(), **setting)
