"""Episodes as moving pictures.

TensorBoard shows a GIF inside an ordinary image summary. The GIF is encoded here because
`SummaryWriter.add_video` writes nothing at all, without a word, beside moviepy 2.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

from lightning_synther.errors import ConfigError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def encode_gif(frames: NDArray[np.uint8], fps: float) -> bytes:
    """GIF bytes of ``frames`` (T, H, W, 3) uint8, played for ever at ``fps`` (up to 100, in hundredths)."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ConfigError(
            f"a video needs uint8 frames of shape (T, H, W, 3), got {frames.dtype} {frames.shape}: "
            f"transpose or scale them first"
        )
    buffer = io.BytesIO()
    iio.imwrite(buffer, frames, extension=".gif", duration=1000 / fps, loop=0)
    return buffer.getvalue()


def add_video(
    writer: SummaryWriter, tag: str, frames: NDArray[np.uint8], step: int, fps: float = 25.0
) -> None:
    """Write ``frames`` (T, H, W, 3) uint8 to TensorBoard's images under ``tag`` at ``step``."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    _, height, width, channels = frames.shape
    image = Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=encode_gif(frames, fps)
    )
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def save_gif(path: str | Path, frames: NDArray[np.uint8], fps: float = 25.0) -> None:
    """Write ``frames`` (T, H, W, 3) uint8 to the file ``path``."""
    Path(path).write_bytes(encode_gif(frames, fps))
