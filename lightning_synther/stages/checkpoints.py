"""Load a checkpoint by its path alone: it says which class it holds and with which settings."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_synther.errors import DataError


def import_class(class_path: str) -> Any:
    """The object at a dotted path."""
    module_name, _, class_name = class_path.rpartition(".")
    return getattr(importlib.import_module(module_name), class_name)


def load_checkpoint(path: str | Path) -> pl.LightningModule:
    """Rebuild the module that ``path`` holds, on the CPU, in evaluation mode.

    Raises `DataError` where the file is missing, damaged, or not a checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"checkpoint {path} does not exist: give the path of a final.ckpt or last.ckpt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0].split(". ")[0][:80] if str(error) else type(error).__name__
        raise DataError(f"checkpoint {path} cannot be read ({reason}): it is damaged or foreign") from error
    class_path = content.get("class_path", "") if isinstance(content, dict) else ""
    if not class_path:
        raise DataError(f"checkpoint {path} does not name its class: it was not written by lightning_synther")
    module = import_class(class_path).load_from_checkpoint(path, map_location="cpu")
    assert isinstance(module, pl.LightningModule)
    return module.eval()
