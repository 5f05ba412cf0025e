"""Train one module on its data in one call, without a run directory: for notebooks, scripts and doctests."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from lightning_synther.data.updates import UpdateData
from lightning_synther.stages.trainer.callbacks import SeedEveryStep
from lightning_synther.stages.trainer.checkpoints import load_checkpoint, save_module
from lightning_synther.stages.trainer.precision import resolve_precision
from lightning_synther.stages.trainer.quiet import quiet_lightning

log = logging.getLogger(__name__)

Module = TypeVar("Module", bound=pl.LightningModule)
Curves = dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Trained(Generic[Module]):
    """A trained module, in evaluation mode, and by name what it logged: (update, value) after (update, value)."""

    module: Module
    curves: Curves = field(repr=False)


def train(
    module: Module,
    data: UpdateData[Any],
    num_updates: int,
    *,
    path: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
) -> Trained[Module]:
    """Train ``module`` by one quiet `Trainer.fit`; with ``path``, only what is not there yet.

    Args:
        module: any agent, `LatentDiffusion` or `LatentDecoder`. Its initial weights are torch's draws: seed them
            with ``torch.manual_seed`` before it is made.
        data: its data, such as `PixelData`, `RowData` or `ReplayData`.
        num_updates: gradient updates.
        path: checkpoint to keep the result in, for `load_checkpoint`. A later call with the same module, data and
            settings loads it; after a change in any of them it trains again, and logs what changed.
        seed: of the training's noise; the batches have the seed of ``data``.
        precision: Lightning's, or ``auto``: bf16 where the hardware multiplies it, else float32.

    >>> from lightning_synther import LatentDiffusion, RowData, collect_states
    >>> store = collect_states("cartpole_swingup", "random", "states", episodes=1, time_limit=1.0)
    >>> model = LatentDiffusion(spec=store.spec.to_dict(), width=32, num_layers=1)
    >>> trained = train(model, RowData("states", batch_size=32), num_updates=100)
    >>> trained.module.sample(8, seed=0).shape, list(trained.curves)
    (torch.Size([8, 12]), ['train/loss', 'train/grad_norm', 'train/lr'])
    """
    resolved = resolve_precision(precision)
    path = None if path is None else Path(path)
    inputs = {} if path is None else _inputs(module, data, num_updates, seed, resolved)
    kept = None if path is None else _kept(path, inputs)
    if kept is not None and path is not None:
        module.load_state_dict(load_checkpoint(path).state_dict())
        return Trained(module.eval(), kept)
    curves = _InMemory()
    with quiet_lightning():
        trainer = pl.Trainer(
            max_steps=num_updates,
            devices=1,
            precision=resolved,  # type: ignore[arg-type]
            logger=curves,
            callbacks=[SeedEveryStep(seed, "train")],
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
    if path is not None:
        _keep(path, module, inputs, curves.curves)
    return Trained(module.eval(), curves.curves)


class _InMemory(Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.curves: Curves = {}

    @property
    def name(self) -> str:
        return "memory"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in the module."""

    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        for name, value in metrics.items():
            if name != "epoch":
                self.curves.setdefault(name, []).append((int(step or 0), float(value)))


def _inputs(
    module: pl.LightningModule, data: UpdateData[Any], num_updates: int, seed: int, precision: str | None
) -> dict[str, Any]:
    """All that the result depends on; of the data, their first batch and seed stand for them."""
    data.setup("fit")
    digest = hashlib.blake2b(repr(data.seed).encode(), digest_size=16)
    _hash(digest, data.batches(range(2)))
    weights = hashlib.blake2b(digest_size=16)
    _hash(weights, [value for value in module.state_dict().values() if isinstance(value, Tensor)])
    return {
        "module": type(module).__qualname__,
        **{name: repr(value) for name, value in sorted(module.hparams.items())},
        "num_updates": num_updates,
        "seed": seed,
        "precision": precision,
        "data": digest.hexdigest(),
        "initial weights": weights.hexdigest(),
    }


def _hash(digest: hashlib.blake2b, tensors: Any) -> None:
    for tensor in _tensors(tensors):
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    else:
        for part in batch:
            yield from _tensors(part)


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def _kept(path: Path, inputs: Mapping[str, Any]) -> Curves | None:
    """The curves of an earlier call with equal inputs; None where there was none, or its inputs were others."""
    if not (path.is_file() and _record(path).is_file()):
        return None
    record = json.loads(_record(path).read_text())
    found = record["inputs"]
    changed = [name for name in {**found, **inputs} if found.get(name) != inputs.get(name)]
    if changed:
        log.info("%s is trained again, because these changed: %s", path.name, ", ".join(changed))
        return None
    return {name: [(int(step), value) for step, value in curve] for name, curve in record["curves"].items()}


def _keep(path: Path, module: pl.LightningModule, inputs: Mapping[str, Any], curves: Curves) -> None:
    """The record comes last: a checkpoint without one was not finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _record(path).unlink(missing_ok=True)
    save_module(module, path)
    partial = path.with_name(path.name + ".record")
    partial.write_text(json.dumps({"inputs": inputs, "curves": curves}))
    partial.replace(_record(path))
