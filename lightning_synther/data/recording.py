"""What a file of episodes holds: its columns, checked, and its frames, on disk until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_synther.errors import DataError

FIRST, MID, LAST = 0, 1, 2  # dm_env.StepType


class FrameBlock(NamedTuple):
    """Consecutive frames of a file; ``read`` fills an array (num_rows, 3, H, W), which may be strided."""

    num_rows: int
    read: Callable[[NDArray[np.uint8]], None]


class Recording(NamedTuple):
    """One file: T rows in whole episodes, row 0 of each its reset; the blocks have T rows in all."""

    action: NDArray[np.float32]  # (T, A)
    reward: NDArray[np.float32]  # (T,)
    discount: NDArray[np.float32]  # (T,)
    lengths: NDArray[np.int64]  # (E,)
    blocks: list[FrameBlock]


def require_keys(path: Path, found: Mapping[str, Any], required: tuple[str, ...]) -> None:
    """Raise `DataError` where ``found`` lacks one of ``required``."""
    if missing := [key for key in required if key not in found]:
        raise DataError(
            f"{path} lacks {', '.join(missing)} (it has {', '.join(found) or 'nothing'}): "
            "it is not a V-D4RL file, move it out of the folder"
        )


def require_frames(path: Path, key: str, dtype: np.dtype, shape: tuple[int, ...], size: int) -> None:
    """Raise `DataError` unless ``shape`` is (T, 3, size, size), and ``dtype`` uint8."""
    if dtype != np.uint8 or len(shape) != 4 or shape[1] != 3:
        raise DataError(
            f"{path}: {key} is {dtype} of shape {shape}, V-D4RL's frames are uint8 RGB: "
            "it is not a V-D4RL file, move it out of the folder"
        )
    if shape[2:] != (size, size):
        raise DataError(
            f"{path}: {key} has frames of {shape[2]}x{shape[3]} pixels, {size}x{size} were asked for: "
            f"set image_size to {shape[2]}, or give the folder {size}px"
        )


def make_recording(
    path: Path,
    columns: Mapping[str, NDArray[Any]],
    step_type: NDArray[Any],
    blocks: list[FrameBlock],
) -> Recording:
    """Check ``action``, ``reward`` and ``discount`` of a file and cut it into episodes.

    A reset's action and reward led to nothing and files disagree about what stands there (zeros, NaN): they
    become 0, and its discount 1.

    Raises `DataError` for arrays of unequal length, of a wrong number of dimensions or with values that are
    not finite, and where the first row does not start an episode, the last row does not end one, or two
    episodes overlap.
    """
    arrays = {key: np.array(columns[key], np.float32) for key in ("action", "reward", "discount")}
    num_rows = sum(block.num_rows for block in blocks)
    found = {"frames": num_rows, "step_type": len(step_type)} | {k: len(a) for k, a in arrays.items()}
    if len(set(found.values())) != 1:
        raise DataError(f"{path} has arrays of unequal length {found}: it is damaged, get or make it again")
    lengths = episode_lengths(path, step_type)
    starts = np.cumsum(lengths) - lengths
    for key, value in (("action", 0), ("reward", 0), ("discount", 1)):
        array = arrays[key] = arrays[key].reshape(num_rows, -1)
        array[starts] = value
        if columns[key].ndim > 2 or (key != "action" and array.shape[1] != 1):
            raise DataError(
                f"{path}: {key} has shape {columns[key].shape}: it is not a V-D4RL file, move it away"
            )
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
            raise DataError(
                f"{path}: {key} is not finite in row {row}: the file is damaged, get or make it again"
            )
    return Recording(arrays["action"], arrays["reward"][:, 0], arrays["discount"][:, 0], lengths, blocks)


def episode_lengths(path: Path, step_type: NDArray[Any]) -> NDArray[np.int64]:
    """(E,) lengths of the episodes that ``step_type`` (T,) marks: 0 first, 1 mid, 2 last (or as floats)."""
    first, last = step_type == FIRST, step_type == LAST
    remedy = "the file is cut off or damaged, get or make it again"
    if len(step_type) == 0:
        raise DataError(f"{path} holds no episodes: {remedy}")
    if not (first | last | (step_type == MID)).all():
        raise DataError(f"{path}: step_type has values other than 0, 1 and 2: {remedy}")
    if not first[0]:
        raise DataError(f"{path}: step_type of row 0 is {step_type[0]:g}, no episode starts there: {remedy}")
    if not last[-1]:
        raise DataError(
            f"{path}: step_type of the last row is {step_type[-1]:g}, no episode ends there: {remedy}"
        )
    if (wrong := first[1:] != last[:-1]).any():
        row = int(np.flatnonzero(wrong)[0]) + 1
        raise DataError(f"{path}: an episode ends or starts alone between rows {row - 1} and {row}: {remedy}")
    return np.diff(np.append(np.flatnonzero(first), len(step_type)))
