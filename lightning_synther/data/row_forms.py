"""The forms in which people bring transitions, as flat rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.errors import DataError
from lightning_synther.transition import Transition, TransitionSpec

ARRAYS = (
    "observations",
    "actions",
    "rewards",
    "terminals",
    "timeouts",
    "next_observations",
    "episodes",
)
BESIDE = ("infos", "metadata")  # groups of D4RL's files, which are left alone
#: A dataset of states, a batch of arrays or tensors, or arrays with D4RL's names.
Transitions = StateDataset | Transition | Mapping[str, ArrayLike]


def flat_rows(transitions: Transitions, gamma: float = 0.99) -> tuple[TransitionSpec, Tensor]:
    """Rows (N, D) and their layout; a `Transition` brings its own discount.

    Raises `DataError` for unknown arrays, shapes that do not fit, several discounts, and numbers that are not finite.
    """
    if isinstance(transitions, Transition):
        parts = Transition(*(torch.as_tensor(np.asarray(part), dtype=torch.float32) for part in transitions))
        spec = _spec_of(parts)
    else:
        if isinstance(transitions, Mapping):
            transitions = StateDataset.from_arrays(**_known(transitions), name="transitions")
        spec, parts = transitions.spec(gamma), transitions.transitions(gamma)
    rows = spec.flatten(parts)
    bad = int((~torch.isfinite(rows)).any(dim=1).sum())
    if bad:
        raise DataError(f"{bad} of {len(rows)} transitions hold numbers that are not finite: remove them")
    return spec, rows


def _known(arrays: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """The arrays that `StateDataset.from_arrays` takes; raises `DataError` for another name."""
    unknown = [name for name in arrays if name not in ARRAYS and name.split("/")[0] not in BESIDE]
    if unknown:
        raise DataError(
            f"the transitions have {', '.join(unknown)}, which mean nothing here: give arrays called "
            f"{', '.join(ARRAYS)}"
        )
    needed = dict.fromkeys(ARRAYS[:4])  # from_arrays says which of them are missing
    return needed | {name: values for name, values in arrays.items() if name in ARRAYS}


def _spec_of(parts: Transition) -> TransitionSpec:
    """Layout of a `Transition`; raises `DataError` for shapes that are none, and for several discounts."""
    count = len(parts.observation)
    for name, part in zip(Transition._fields, parts, strict=True):
        if part.dim() != 2 or len(part) != count or (name in ("reward", "discount") and part.shape[1] != 1):
            wanted = (count, 1) if name in ("reward", "discount") else (count, "size")
            raise DataError(
                f"the transitions have {name} of shape {tuple(part.shape)}: give ({wanted[0]}, {wanted[1]})"
            )
    discounts = [round(value, 6) for value in parts.discount[parts.discount != 0].unique().tolist()]
    if len(discounts) != 1:
        raise DataError(
            f"the transitions have the discounts {discounts[:5]}: those that do not end an episode need one and "
            "the same, and the others 0"
        )
    terminal = bool((parts.discount == 0).any())
    sizes = parts.observation.shape[1], parts.action.shape[1]
    return TransitionSpec(*sizes, discount=discounts[0], terminal=terminal)
