"""Golden vectors: the arrays that the published implementations computed, as fixtures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(os.environ.get("SYNTHER_GOLDEN", Path(__file__).parent.parent / "golden"))


class Golden:
    """One file of golden vectors: ``hp`` holds its hyperparameters, ``[key]`` an array, ``state(prefix)`` tensors."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self._arrays = {key: file[key] for key in file.files}
        self.hp = json.loads(str(self._arrays.pop("hparams")))

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def keys(self) -> list[str]:
        return list(self._arrays)

    def tensor(self, key: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self._arrays[key]))

    def state(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors whose key starts with ``prefix``, with the prefix removed."""
        return {key[len(prefix) :]: self.tensor(key) for key in self._arrays if key.startswith(prefix)}


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    def load(name: str) -> Golden:
        path = GOLDEN / f"{name}.npz"
        if not path.exists():
            pytest.fail(f"golden file {path} is missing: set SYNTHER_GOLDEN to the folder that holds it")
        return Golden(path)

    return load
