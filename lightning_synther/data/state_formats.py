"""The door to offline data on states: which format a path or a name is in, and its loader."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.errors import ConfigError, DataError

#: Format -> its module, and in words what it looks like. Each module has `recognises` and `load`.
FORMATS = {
    "d4rl": (
        "lightning_synther.data.state_hdf5",
        "D4RL's HDF5 (.hdf5 with observations, actions, rewards, terminals)",
    ),
    "minari": (
        "lightning_synther.data.state_minari",
        "Minari (a dataset's folder, or its id as in mujoco/hopper/medium-v0)",
    ),
    "ogbench": (
        "lightning_synther.data.state_ogbench",
        "OGBench (its .npz with observations, actions, terminals and no rewards, or a name as in "
        "antmaze-medium-navigate-v0)",
    ),
    "npz": ("lightning_synther.data.state_npz", "arrays of D4RL's names, or SynthER's, in one .npz"),
    "store": ("lightning_synther.data.state_store", "a store of transitions (a folder with metadata.json)"),
}


def load_states(path: str | Path, format: str = "auto", **options: Any) -> StateDataset:
    """Read the offline data at ``path``, a file, a folder, or the name of a published dataset.

    Args:
        path: where the data lie, or what they are called.
        format: one of `FORMATS`, or ``auto`` for the first that recognises the path.
        options: of the format's own ``load``.

    Raises:
        ConfigError: there is no such format, or it does not have such an option.
        DataError: no format recognises the path (the sentence names those tried), or the data are refused.
    """
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}: give one of auto, {', '.join(FORMATS)}")
    name = recognise(path) if format == "auto" else format
    load: Callable[..., StateDataset] = importlib.import_module(FORMATS[name][0]).load
    known = [
        name
        for name, parameter in signature(load).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(
            f"the format {name} of {path} has no option {', '.join(unknown)}: "
            f"it has {', '.join(known) or 'none'}"
        )
    return load(str(path), **options)


def recognise(path: str | Path) -> str:
    """The format of ``path``; `DataError` names those tried where it is in none."""
    for name, (module, _) in FORMATS.items():
        if importlib.import_module(module).recognises(str(path)):
            return name
    tried = "; ".join(f"{name}: {looks}" for name, (_, looks) in FORMATS.items())
    missing = "" if Path(path).exists() else ", nor does such a file or folder exist"
    raise DataError(f"{path} is in no format of states that is known{missing}: tried {tried}")
