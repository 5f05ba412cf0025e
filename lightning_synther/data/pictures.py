"""Frames as pictures: rows of labelled frames in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_synther.errors import DataError
from lightning_synther.evaluation.figures import TITLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


def frames_figure(
    strips: Mapping[str, NDArray[np.uint8] | Tensor],
    titles: Sequence[str] | None = None,
    frame_size: float = 1.2,
    heading: str = "",
) -> Figure:
    """Strips of frames below each other, each with its name on the left.

    Args:
        strips: by name, frames (N, 3, H, W) uint8, or stacks (N, 3 * k, H, W), of which the newest frame is shown.
        titles: of the columns.
        frame_size: inches a side of a frame.
        heading: what there is to see, above all of it.

    Raises `DataError` for what is no frames, and for strips or titles of different lengths.

    >>> black = np.zeros((4, 9, 84, 84), np.uint8)
    >>> figure = frames_figure({"episode 1": black, "episode 2": black}, titles=["0", "1", "2", "3"])
    >>> len(figure.axes)
    8
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    arrays = {name: _newest(name, frames) for name, frames in strips.items()}
    lengths = {name: len(frames) for name, frames in arrays.items()} | (
        {"titles": len(titles)} if titles else {}
    )
    if len(set(lengths.values())) != 1:
        raise DataError(f"strips have different lengths, {lengths}: give equally many frames to each")
    count = next(iter(lengths.values()))
    extra = (0.3 if titles else 0.0) + (0.25 + 0.2 * heading.count("\n") if heading else 0.0)
    size = (frame_size * count, 1.04 * frame_size * len(arrays) + extra)
    figure = Figure(figsize=size, layout="constrained")
    if heading:
        figure.suptitle(heading, fontsize=TITLE)
    axes = figure.subplots(len(arrays), count, squeeze=False)
    for row, (name, frames) in zip(axes, arrays.items(), strict=True):
        for axis, frame in zip(row, frames, strict=True):
            axis.imshow(frame)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(name, fontsize=9)
    for axis, title in zip(axes[0], titles or (), strict=False):
        axis.set_title(title, fontsize=9)
    return figure


def _newest(name: str, frames: NDArray[np.uint8] | Tensor) -> NDArray[np.uint8]:
    """The newest frame of each stack, channels last (N, H, W, 3)."""
    array: NDArray[np.uint8] = np.asarray(frames)
    if array.ndim != 4 or array.shape[1] % 3 or array.dtype != np.uint8 or not len(array):
        raise DataError(
            f"{name!r} is {array.dtype} of shape {array.shape}: give one or more frames (N, 3, H, W) uint8"
        )
    return array[:, -3:].transpose(0, 2, 3, 1)
