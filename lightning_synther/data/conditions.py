"""Conditions: numbers that belong to the rows of a store without being part of them.

``<store>/conditions/<name>.safetensors`` holds an array (N, C) float32 with a row for each transition:
return-to-go, curiosity, a task id. Whatever lies there can condition a diffusion model (`RowData`,
`LatentDiffusion`), whoever wrote it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_synther.data.disk import full_disk_is_one_sentence
from lightning_synther.data.store import StoreMetadata
from lightning_synther.errors import DataError

FOLDER, SUFFIX, VALUES = "conditions", ".safetensors", "values"


def write_condition(
    store: str | Path,
    name: str,
    values: Tensor | NDArray[Any],
    made_from: Mapping[str, Any] | None = None,
) -> Path:
    """Put the array ``values``, (N,) or (N, C), beside the rows of ``store``; an earlier one is replaced.

    ``made_from`` says what an array was computed with, in JSON's types (`condition_made_from`); leave it out
    for one of your own. Raises `DataError` unless there is one finite row for each transition.
    """
    folder = Path(store)
    num_transitions = StoreMetadata.read(folder).num_transitions
    array = torch.as_tensor(values, dtype=torch.float32).detach().cpu()
    array = array[:, None] if array.dim() == 1 else array
    if array.dim() != 2 or len(array) != num_transitions or not array.shape[1]:
        raise DataError(
            f"the condition {name!r} has shape {tuple(array.shape)}, but {folder} holds {num_transitions} "
            f"transitions: give one number, or one vector, for each"
        )
    if bad := int((~array.isfinite()).any(dim=1).sum()):
        raise DataError(f"the condition {name!r} of {folder} has {bad} rows that are not finite: mend them")
    path = _path(folder, name)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    with full_disk_is_one_sentence(path, "free some and run the same command again"):
        metadata = None if made_from is None else {"made_from": json.dumps(made_from, sort_keys=True)}
        save_file({VALUES: array.contiguous()}, partial, metadata=metadata)
        os.replace(partial, path)
    return path


def read_condition(store: str | Path, name: str) -> Tensor:
    """The array (N, C) called ``name`` beside the rows of ``store``, mapped; raises `DataError` without."""
    folder = Path(store)
    path = _path(folder, name)
    if not path.is_file():
        found = ", ".join(available_conditions(folder)) or "none"
        raise DataError(
            f"the store {folder} has no condition {name!r} (it has: {found}): write it with write_condition, "
            "or take a name that can be computed"
        )
    values, _ = _read(path)
    num_transitions = StoreMetadata.read(folder).num_transitions
    if values.dim() != 2 or len(values) != num_transitions:
        raise DataError(
            f"{path} holds {tuple(values.shape)} numbers for {num_transitions} transitions: "
            "it belongs to another store, write it again"
        )
    return values


def read_conditions(store: str | Path, names: Sequence[str]) -> tuple[Tensor, dict[str, int]]:
    """The arrays ``names`` side by side (N, C), and how many columns each has."""
    arrays = {name: read_condition(store, name) for name in names}
    return torch.cat(list(arrays.values()), dim=1), {name: a.shape[1] for name, a in arrays.items()}


def condition_made_from(store: str | Path, name: str) -> Mapping[str, Any] | None:
    """What the array called ``name`` was computed with; None where it is missing or somebody's own."""
    path = _path(Path(store), name)
    if not path.is_file():
        return None
    made_from = _read(path)[1].get("made_from")
    return None if made_from is None else dict(json.loads(made_from))


def available_conditions(store: str | Path) -> list[str]:
    """Names of the arrays beside the rows of ``store``."""
    return sorted(path.stem for path in (Path(store) / FOLDER).glob(f"*{SUFFIX}"))


def _path(store: Path, name: str) -> Path:
    if not name or Path(name).name != name or name.startswith("."):
        raise DataError(f"{name!r} cannot be the name of a condition: give a plain name, as in 'curiosity'")
    return store / FOLDER / (name + SUFFIX)


def _read(path: Path) -> tuple[Tensor, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(VALUES), dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged or no array of conditions ({error}): write it again") from None
