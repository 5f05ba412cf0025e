"""Plain arrays in one NPZ file, of D4RL's names or in the layout of SynthER's published code.

SynthER's has ``next_observations`` and no ``timeouts``; where a row's next observation is not the following row's
observation an episode ends, so that shuffled or synthetic transitions are episodes of one transition each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from lightning_synther.data.npz import opened
from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.data.state_hdf5 import by_name, read_arrays


def recognises(path: str) -> bool:
    """Whether ``path`` is a file called .npz."""
    return Path(path).suffix == ".npz" and Path(path).is_file()


def load(
    path: str,
    *,
    env: str | Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    action_low: ArrayLike | None = None,
    action_high: ArrayLike | None = None,
    reference_scores: tuple[float, float] | None = None,
) -> StateDataset:
    """The transitions of one file; arguments and errors as of `state_hdf5.load`."""
    with opened(Path(path)) as file:
        arrays = read_arrays(path, file)
    settings = {"env": env, "max_episode_steps": max_episode_steps, "reference_scores": reference_scores}
    return StateDataset.from_arrays(
        **arrays,
        action_low=action_low,
        action_high=action_high,
        name=path,
        **by_name(path, arrays["observations"], settings),
    )
