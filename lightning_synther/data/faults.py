"""What can be wrong with a file of episodes: every fault, where the readers stop at the first.

A fault is one line without the file's name. Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.recording import FIRST, LAST, MID

TOLERANCE = 1e-5  # by which an action may lie outside [-1, 1]


def whole_episodes(step_type: NDArray[Any]) -> list[slice]:
    """Rows of the episodes that start and end in ``step_type`` (T,), whatever lies between them.

    >>> whole_episodes(np.array([1, 2, 0, 1, 0, 1, 2]))
    [slice(4, 7, None)]
    """
    starts, ends = np.flatnonzero(step_type == FIRST), np.flatnonzero(step_type == LAST)
    episodes = []
    for i, start in enumerate(starts):
        following = starts[i + 1] if i + 1 < len(starts) else len(step_type)
        inside = ends[(ends > start) & (ends < following)]
        if len(inside):
            episodes.append(slice(int(start), int(inside[0]) + 1))
    return episodes


def length_faults(lengths: Mapping[str, int]) -> list[str]:
    """Arrays of one file that are not equally long."""
    if len(set(lengths.values())) <= 1:
        return []
    return ["arrays of unequal length: " + ", ".join(f"{key} {count}" for key, count in lengths.items())]


def step_type_faults(step_type: NDArray[Any]) -> list[str]:
    """Missing starts and ends of episodes in ``step_type`` (T,)."""
    if len(step_type) == 0:
        return ["holds no rows"]
    first, last = step_type == FIRST, step_type == LAST
    faults = []
    if not first[0]:
        faults.append(f"the first episode has no start: step_type of row 0 is {step_type[0]:g}")
    unended = np.append(first[1:] & ~last[:-1], not last[-1])
    unstarted = last[:-1] & ~first[1:]
    foreign = ~(first | last | (step_type == MID))
    for rows, what in (
        (np.flatnonzero(unended), "no end (step_type 2) before the next start or the file's end"),
        (np.flatnonzero(unstarted) + 1, "no start (step_type 0) after another's end"),
    ):
        if len(rows):
            noun = "an episode has" if len(rows) == 1 else f"{len(rows)} episodes have"
            faults.append(f"{noun} {what} (row {rows[0]})")
    if foreign.any():
        faults.append(f"step_type of row {int(np.flatnonzero(foreign)[0])} is none of 0, 1 and 2")
    return faults


def value_faults(columns: Mapping[str, NDArray[Any]], resets: NDArray[np.bool_]) -> list[str]:
    """Values that no environment gives; ``resets`` (T,) marks the rows whose numbers mean nothing."""
    faults = []
    for key, values in columns.items():
        table = np.asarray(values, np.float64).reshape(len(values), -1)[~resets]
        where = np.flatnonzero(~resets)
        bad = ~np.isfinite(table).all(axis=1)
        if bad.any():
            count, row = int(bad.sum()), where[np.flatnonzero(bad)[0]]
            faults.append(f"{key} is not finite in {count} row{'s' * (count > 1)} (row {row})")
        low, high = {"action": (-1.0, 1.0), "discount": (0.0, 1.0)}.get(key, (-np.inf, np.inf))
        beyond = ((table < low - TOLERANCE) | (table > high + TOLERANCE)).any(axis=1) & ~bad
        if beyond.any():
            row = where[np.flatnonzero(beyond)[0]]
            faults.append(f"{key} leaves [{low:g}, {high:g}] in {int(beyond.sum())} rows (row {row})")
    return faults


def early_ends(discount: NDArray[Any], step_type: NDArray[Any]) -> list[str]:
    """Rows of discount 0, a true end, in the middle of an episode."""
    rows = np.flatnonzero((np.asarray(discount).reshape(-1) == 0) & (step_type == MID))
    return [f"discount is 0 inside an episode in {len(rows)} rows (row {rows[0]})"] if len(rows) else []


def reset_notes(columns: Mapping[str, NDArray[Any]], resets: NDArray[np.bool_]) -> list[str]:
    """A hint at the commonest mistake with this format: actions and rewards shifted by one row."""
    table = np.asarray(columns["action"], np.float64).reshape(len(resets), -1)[resets]
    count = int((np.nan_to_num(table) != 0).any(axis=1).sum())
    if not count:
        return []
    return [
        f"{count} of {int(resets.sum())} reset rows hold an action: fine if it is a filler, but in V-D4RL row t "
        "holds the action that led to observation t"
    ]
