"""A video that shows: written to a real event file, read back, decoded."""

import imageio.v3 as iio
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.video import add_video, save_gif


def frames():
    """Eight uniform grey images, each lighter than the one before."""
    return np.broadcast_to(np.arange(0, 240, 30, np.uint8)[:, None, None, None], (8, 12, 10, 3)).copy()


def test_event_file_holds_every_frame(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        add_video(writer, "eval/video", frames(), step=7, fps=20)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    (event,) = events.Images("eval/video")
    assert (event.step, event.height, event.width) == (7, 12, 10)
    assert event.encoded_image_string[:6] == b"GIF89a"
    decoded = iio.imread(event.encoded_image_string, extension=".gif", index=None, mode="RGB")
    np.testing.assert_allclose(decoded, frames(), atol=2)
    assert iio.immeta(event.encoded_image_string, extension=".gif")["duration"] == 50


def test_file_is_an_animation_that_repeats(tmp_path):
    save_gif(tmp_path / "episode.gif", frames())
    assert len(iio.imread(tmp_path / "episode.gif", index=None)) == 8
    assert iio.immeta(tmp_path / "episode.gif")["loop"] == 0


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 3, 8, 8), np.uint8), np.zeros((4, 8, 8, 3)), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_other_layouts_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match=r"uint8 frames of shape \(T, H, W, 3\)"):
        save_gif(tmp_path / "episode.gif", wrong)
