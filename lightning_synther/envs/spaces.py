"""Gymnasium's nested observations as flat vectors: the same order in a live environment and in a data set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.errors import ConfigError


def flat_size(space: Any, where: str) -> int:
    """Length of the vector that `flatten` makes of observations of ``space``.

    Raises `ConfigError` that names ``where`` for images, and for spaces of anything but numbers.
    """
    return sum(math.prod(part.shape) for part in _leaves(space, where))


def flatten(space: Any, observation: Any, num_leading: int = 0) -> NDArray[np.float32]:
    """One vector of all arrays in ``observation``, in the order of the space: a dict's entries by their names.

    So a goal environment's is [achieved_goal, desired_goal, observation]. ``num_leading`` axes are kept: with 1,
    arrays (T, ...) become (T, S).
    """
    parts: list[NDArray[np.float32]] = []

    def visit(space: Any, value: Any) -> None:
        if hasattr(space, "spaces"):
            named = space.spaces.items() if isinstance(space.spaces, dict) else enumerate(space.spaces)
            for key, part in named:
                visit(part, value[key])
        else:
            array = np.asarray(value, np.float32)
            parts.append(array.reshape((*array.shape[:num_leading], -1)))

    visit(space, observation)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def is_image(space: Any) -> bool:
    """Whether ``space`` is of RGB images, uint8 (H, W, 3)."""
    shape: tuple[int, ...] = getattr(space, "shape", None) or ()
    return getattr(space, "dtype", None) == np.uint8 and len(shape) == 3 and shape[-1] == 3


def _leaves(space: Any, where: str) -> list[Any]:
    if hasattr(space, "spaces"):
        parts = space.spaces.values() if isinstance(space.spaces, dict) else space.spaces
        return [leaf for part in parts for leaf in _leaves(part, where)]
    if getattr(space, "dtype", None) == np.uint8 and len(space.shape) > 1:
        raise ConfigError(
            f"{where} observes images {space.shape}: an agent on states takes vectors, train one on pixels"
        )
    if type(space).__name__ not in ("Box", "MultiBinary"):
        raise ConfigError(f"{where} observes {space}: only numbers (Box), and dicts of them, make a state")
    return [space]
