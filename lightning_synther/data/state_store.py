"""States of a store of transitions, as one format among the others."""

from __future__ import annotations

from pathlib import Path

from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.data.store import METADATA, ROWS


def recognises(path: str) -> bool:
    """Whether ``path`` is a folder with a store's files."""
    return (Path(path) / ROWS).is_file() and (Path(path) / METADATA).is_file()


def load(path: str) -> StateDataset:
    """The transitions of the store ``path``, as `StateDataset.of_store` reads them."""
    return StateDataset.of_store(path)
