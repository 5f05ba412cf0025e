"""A video for notebooks: an animated PNG, which notebook viewers on the web show as they show plots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_synther.errors import ConfigError

COLOURS = 64  # of a frame: a third of the size of true colour, and hard to tell from it


@dataclass(frozen=True)
class Video:
    """Frames that a notebook plays when a cell ends with them.

    Attributes:
        frames: (T, H, W, 3) uint8, as `EpisodeResult.frames` are.
        fps: frames a second.
        every: show only each ``every``-th frame, which keeps a notebook's file small; time still passes as fast.
        width: pixels that it is shown at.

    >>> video = Video(np.zeros((50, 84, 84, 3), np.uint8), every=5)
    >>> video.num_frames, video.encode()[:4]
    (10, b'\\x89PNG')
    """

    frames: NDArray[np.uint8]
    fps: float = 25.0
    every: int = 1
    width: int = 252

    def __post_init__(self) -> None:
        frames = self.frames
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
            raise ConfigError(
                f"a video needs uint8 frames of shape (T, H, W, 3), got {frames.dtype} {frames.shape}: transpose or "
                "scale them first"
            )
        if self.fps <= 0 or self.every < 1:
            raise ConfigError(
                f"fps is {self.fps} and every {self.every}: give a positive rate and at least 1"
            )

    @classmethod
    def beside(
        cls, *episodes: NDArray[np.uint8], fps: float = 25.0, every: int = 1, width: int = 252
    ) -> Video:
        """Several episodes of (T, H, W, 3) next to each other, as long as the longest: others hold their last frame.

        ``width`` is that of one of them.
        """
        length = max(map(len, episodes))
        held = [np.concatenate([part, part[-1:].repeat(length - len(part), 0)]) for part in episodes]
        return cls(np.concatenate(held, axis=2), fps, every, width * len(episodes))

    @property
    def num_frames(self) -> int:
        """How many are shown."""
        return -(-len(self.frames) // self.every)

    def encode(self) -> bytes:
        """An animated PNG that plays for ever."""
        shown = _one_palette(self.frames[:: self.every])
        buffer = io.BytesIO()
        duration = 1000 * self.every / self.fps
        shown[0].save(
            buffer, "PNG", save_all=True, append_images=shown[1:], duration=duration, loop=0, optimize=True
        )
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the animated PNG to ``path``."""
        Path(path).write_bytes(self.encode())

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        height = self.width * self.frames.shape[1] // self.frames.shape[2]
        return self.encode(), {"width": self.width, "height": height}


def _one_palette(frames: NDArray[np.uint8]) -> Sequence[Image.Image]:
    """Frames in the same `COLOURS`, chosen over some of them: an animated PNG has one palette."""
    some = frames[:: max(1, len(frames) // 8)]
    palette = Image.fromarray(np.concatenate(list(some))).quantize(COLOURS)
    return [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
