"""What a file or a store holds, for the inputs of a stage that is given its path: a path alone tells no change."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_synther.data.store import StoreMetadata, TransitionStore
from lightning_synther.errors import DataError


def file_contents(path: str | Path) -> str:
    """Digest of a file's bytes, wherever it lies; `DataError` where there is none."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"file {path} does not exist: give the path of one that does")
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def store_contents(path: str | Path) -> dict[str, Any]:
    """Metadata of a store, wherever it lies; `DataError` where there is none, or a damaged one."""
    TransitionStore.open(path)
    return {key: value for key, value in asdict(StoreMetadata.read(Path(path))).items() if key != "extra"}
