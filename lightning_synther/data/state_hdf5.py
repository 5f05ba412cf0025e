"""D4RL's HDF5 files as they lie on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightning_synther.data import hdf5, state_d4rl


def recognises(path: str) -> bool:
    """Whether ``path`` is a file called .hdf5 or .h5."""
    return Path(path).suffix in (".hdf5", ".h5") and Path(path).is_file()


load = partial(state_d4rl.load, hdf5.opened)
