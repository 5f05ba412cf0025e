"""`inspect` of offline data on states, as `load_states` reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_synther.data.findings import Inspection, distribution
from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.data.state_formats import FORMATS, load_states, recognise
from lightning_synther.errors import DataError
from lightning_synther.evaluation.scores import normalized_score


def inspect_states(path: Path) -> Inspection:
    """The findings about a file or folder of states; what cannot be read is a fault, in the loader's words."""
    name = recognise(path)
    found = Inspection(path, f"states: {FORMATS[name][1]}")
    try:
        data = load_states(path, format=name)
    except DataError as error:
        found.faults.append(str(error))
        return found
    found.values = data.returns
    low, high = float(data.action.min()), float(data.action.max())
    found.lines = [
        ("task", "unknown: give env where the data are loaded" if data.env is None else data.env["task"]),
        ("name", data.name),
        ("transitions", str(len(data))),
        ("episodes", _episodes(data)),
        ("observations", f"{data.observation.shape[1]} numbers, {_range(data)}"),
        ("actions", f"{data.action.shape[1]} numbers from {low:.3f} to {high:.3f}, after any rescaling"),
        ("terminals", f"{int(data.terminal.sum())} ({100 * data.terminal.mean():.2f} %)"),
        *distribution("rewards", data.reward),
        *distribution("returns", data.returns),
    ]
    if data.reference_scores is not None:
        score, (zero, hundred) = normalized_score(data.returns, data.reference_scores), data.reference_scores
        found.lines.append(("score", f"{score:.1f} on average ({zero:g} counts as 0, {hundred:g} as 100)"))
    return found


def _episodes(data: StateDataset) -> str:
    lengths = data.lengths
    last = np.append(np.flatnonzero(np.diff(data.episode)), len(data) - 1)
    each = str(lengths[0]) if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
    return f"{len(lengths)} of {each} transitions, {int(data.terminal[last].sum())} of them end for good"


def _range(data: StateDataset) -> str:
    deviation = data.observation.std(axis=0)
    constant = int((deviation == 0).sum())
    said = f"from {data.observation.min():.4g} to {data.observation.max():.4g}"
    return said + (f", {constant} of them never change" if constant else "")
