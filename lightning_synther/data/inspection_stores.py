"""`inspect` of flat transitions: our stores, and NPZ files of SynthER's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data import npz as npz_files
from lightning_synther.data.conditions import available_conditions, read_condition
from lightning_synther.data.faults import length_faults
from lightning_synther.data.findings import Inspection, distribution
from lightning_synther.data.state_dataset import EPISODE
from lightning_synther.data.store import METADATA, TransitionStore
from lightning_synther.data.synther_npz import ARRAYS
from lightning_synther.errors import DataError

_PIECE = 65_536  # rows read at a time


def inspect_store(path: Path) -> Inspection:
    """The findings about a store of transitions; it is read in pieces, in bounded memory."""
    found = Inspection(path, f"store of transitions (rows.npy, {METADATA})", values_of="rewards")
    try:
        store = TransitionStore.open(path)
    except DataError as error:
        found.faults.append(str(error))
        return found
    spec, metadata = store.spec, store.metadata
    found.lines = [
        ("producer", f"{metadata.producer}, seed {metadata.seed}"),
        ("transitions", str(len(store))),
        ("episodes", _episodes(path)),
        ("row", f"{spec.dim} numbers: " + ", ".join(_columns(spec.fields))),
        ("discount", f"{spec.discount:g}"),
    ]
    if "task" in metadata.extra:
        found.lines.insert(0, ("task", str(metadata.extra["task"])))
    low, high, ends = np.inf, -np.inf, 0
    num_bad, first_bad = 0, -1
    for start in range(0, len(store), _PIECE):
        rows = store.rows[start : start + _PIECE]
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad) and not num_bad:
            first_bad = start + int(bad[0])
        num_bad += len(bad)
        action = rows[:, spec.fields["action"]]
        low, high = min(low, float(np.nanmin(action))), max(high, float(np.nanmax(action)))
        ends += int((rows[:, spec.fields["terminal"]] > 0.5).sum()) if spec.terminal else 0
    found.lines.append(("actions", f"{spec.action_dim} numbers from {low:.3f} to {high:.3f}"))
    if spec.terminal:
        found.lines.append(("terminals", f"{ends} ({100 * ends / len(store):.2f} %)"))
    _add_rewards(found, store.rows[:, spec.fields["reward"]])
    if num_bad:
        found.faults.append(f"{num_bad} rows are not finite (row {first_bad})")
    return found


def inspect_synther_npz(path: Path) -> Inspection:
    """The findings about an NPZ file of SynthER's layout, which is read whole."""
    found = Inspection(path, "transitions in SynthER's NPZ layout", values_of="rewards")
    try:
        with npz_files.opened(path) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in ARRAYS.values() if name in file}
    except DataError as error:
        found.faults.append(str(error))
        return found
    if missing := [name for name in ARRAYS.values() if name not in arrays]:
        found.faults.append(f"lacks {', '.join(missing)}")
    found.faults += length_faults({name: len(array) for name, array in arrays.items()})
    found.lines = [("transitions", str(min(map(len, arrays.values()))))]
    for name, array in arrays.items():
        found.lines.append(
            (name[:12], f"{array.dtype} {array.shape}, {array.min():.4g} to {array.max():.4g}")
        )
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            found.faults.append(
                f"{name} is not finite in {int(bad.sum())} rows (row {int(np.flatnonzero(bad)[0])})"
            )
    _add_rewards(found, arrays.get("rewards", np.zeros(0)))
    return found


def _add_rewards(found: Inspection, rewards: NDArray[Any]) -> None:
    values = np.asarray(rewards, np.float64).reshape(-1)
    found.values = values[np.isfinite(values)]
    found.lines += distribution("rewards", found.values)


def _episodes(path: Path) -> str:
    """How many episodes the condition that numbers them has."""
    if EPISODE not in available_conditions(path):
        return "none: every row stands by itself"
    return f"{len(np.unique(read_condition(path, EPISODE)))}, numbered by the condition {EPISODE}"


def _columns(fields: dict[str, slice]) -> list[str]:
    return [f"{name} {columns.stop - columns.start}" for name, columns in fields.items()]
