"""Checkpoints that are loaded by their path alone: they say which class they hold and with which settings."""

from __future__ import annotations

import pickle
from pathlib import Path

import lightning.pytorch as pl
import torch

from lightning_synther.errors import DataError
from lightning_synther.stages.config.module import class_path, import_class


def save_module(module: pl.LightningModule, path: Path) -> None:
    """Write a checkpoint that `load_checkpoint` rebuilds ``module`` from, and nothing else, in one piece."""
    partial = path.with_name(path.name + ".partial")
    content = {
        "pytorch-lightning_version": pl.__version__,
        "class_path": class_path(module),
        module.CHECKPOINT_HYPER_PARAMS_KEY: dict(module.hparams),
        "state_dict": module.state_dict(),
    }
    torch.save(content, partial)
    partial.replace(path)


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
    found = content.get("class_path", "") if isinstance(content, dict) else ""
    if not found:
        raise DataError(f"checkpoint {path} does not name its class: it was not written by lightning_synther")
    module = import_class(found).load_from_checkpoint(path, map_location="cpu")
    assert isinstance(module, pl.LightningModule)
    return module.eval()
