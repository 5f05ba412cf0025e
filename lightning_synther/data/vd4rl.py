"""The V-D4RL benchmark's files: where they lie, how they are read and written."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_synther.data.writers import Hdf5Writer, NpzWriter

__all__ = ["Hdf5Writer", "NpzWriter", "dataset_dir"]


def dataset_dir(root: str | os.PathLike[str], task: str, policy: str, image_size: int) -> Path:
    """Folder of one dataset in the official layout.

    >>> dataset_dir("data", "cheetah_run", "medium", 84).as_posix()
    'data/main/cheetah_run/medium/84px'
    """
    return Path(root) / "main" / task / policy / f"{image_size}px"
