"""Plain arrays in one NPZ file, of D4RL's names or in the layout of SynthER's published code.

SynthER's has ``next_observations`` and no ``timeouts``; where a row's next observation is not the following row's
observation an episode ends, so that shuffled or synthetic transitions are episodes of one transition each.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightning_synther.data import npz, state_d4rl


def recognises(path: str) -> bool:
    """Whether ``path`` is a file called .npz."""
    return Path(path).suffix == ".npz" and Path(path).is_file()


load = partial(state_d4rl.load, npz.opened)
