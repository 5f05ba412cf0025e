"""Synthetic experience replay as one function, for people with their own RL code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_synther.bounds import check_counts
from lightning_synther.data.datamodules import RowData
from lightning_synther.data.row_forms import Transitions, flat_rows
from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.stages.trainer.callbacks import SeedEveryStep, ShowProgress
from lightning_synther.stages.trainer.quiet import quiet_lightning
from lightning_synther.synthesis.sample import StoreWriterCallback, SynthesisData
from lightning_synther.transition import Transition


class Size(NamedTuple):
    """What a training takes by default, by the number of real transitions."""

    width: int
    num_layers: int
    num_updates: int
    batch_size: int


def default_size(num_real: int) -> Size:
    """Network and training for ``num_real`` transitions: minutes on a CPU below 100,000, as published above.

    >>> default_size(5_000)
    Size(width=256, num_layers=4, num_updates=10000, batch_size=256)
    >>> default_size(1_000_000)
    Size(width=1024, num_layers=6, num_updates=100000, batch_size=1024)
    """
    if num_real < 20_000:
        return Size(256, 4, 10_000, 256)
    if num_real < 100_000:
        return Size(512, 4, 20_000, 256)
    return Size(1024, 6, 100_000, 256 if num_real < 800_000 else 1024)


def synthesize(
    transitions: Transitions,
    num_transitions: int,
    *,
    gamma: float = 0.99,
    num_updates: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    path: str | Path | None = None,
    progress: bool = True,
    accelerator: str = "auto",
    precision: str | None = None,
    **model: Any,
) -> Transition:
    """Train a diffusion model on real transitions and sample synthetic ones from it (SynthER, Lu et al. 2023).

    The random generators of the calling program are left as they were.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> states = rng.normal(size=(500, 3)).astype(np.float32)
    >>> actions = rng.uniform(-1, 1, size=(500, 1)).astype(np.float32)
    >>> real = {
    ...     "observations": states,
    ...     "actions": actions,
    ...     "rewards": -np.square(states).sum(axis=1),
    ...     "next_observations": states + 0.1 * actions,
    ...     "terminals": np.zeros(500),
    ... }
    >>> made = synthesize(real, 2_000, num_updates=20, width=32, progress=False)
    >>> made.observation.shape, made.reward.shape
    (torch.Size([2000, 3]), torch.Size([2000, 1]))

    Args:
        transitions: the real experience, N transitions: a `StateDataset` (`load_states` reads one from a file); a
            `Transition` of arrays or tensors, rewards and discounts (N, 1); or a mapping of arrays with D4RL's
            names, as `StateDataset.from_arrays` takes them (D4RL's ``infos`` and ``metadata`` are left alone).
        num_transitions: how many to make.
        gamma: discount of one step, of the transitions that are made; a `Transition` brings its own.
        num_updates: gradient updates; None goes by the size of the data (`default_size`).
        batch_size: transitions in an update; None goes by the size of the data.
        seed: of weights, batches and samples. The same seed gives the same transitions on the same machine.
        path: write the synthetic transitions as a store there (a `TransitionStore`), which is then mapped instead of
            held in memory.
        progress: show how far it is.
        accelerator: Lightning's, as in ``cpu`` or ``gpu``.
        precision: Lightning's, as in ``bf16-mixed``.
        model: settings of `LatentDiffusion` that differ: ``width`` and ``num_layers`` go by the size of the data, and
            the sampler takes 12 steps with noise levels found from the data.

    Returns:
        float32 tensors on the CPU: observation (M, O), action (M, A), reward (M, 1), next_observation (M, O), and
        discount (M, 1), which is ``gamma``, or 0 where a transition ends its episode for good (terminals are
        modelled where the real ones have any, and count as such above 0.5).

    Raises:
        ConfigError: settings that no training can have, or something that is already at ``path``; before the training.
        DataError: transitions that are too few, not finite, or of shapes that do not fit.
    """
    check_counts("", num_transitions=num_transitions, num_updates=num_updates)
    if path is not None and Path(path).exists():
        raise ConfigError(f"path {path} exists: give another, or remove what is there")
    spec, rows = flat_rows(transitions, gamma)
    size = default_size(len(rows))
    num_updates = num_updates or size.num_updates
    settings = {"width": size.width, "num_layers": size.num_layers, **model}
    trainer = {"accelerator": accelerator, "precision": precision}
    with isolate_rng(), quiet_lightning():
        torch.manual_seed(seed)
        diffusion = LatentDiffusion(spec=spec.to_dict(), **settings)
        data = RowData.of_rows(
            rows,
            batch_size=batch_size or size.batch_size,
            updates_per_step=math.gcd(num_updates, 10),  # Lightning's overhead is paid once for all of them
            seed=seed,
        )
        callbacks = [SeedEveryStep(seed, "diffusion"), *([ShowProgress("diffusion")] if progress else [])]
        _trainer(max_steps=num_updates, callbacks=callbacks, **trainer).fit(diffusion, datamodule=data)
        return _sample(diffusion, num_transitions, seed, path, progress, trainer)


def _sample(
    model: LatentDiffusion,
    num_transitions: int,
    seed: int,
    path: str | Path | None,
    progress: bool,
    settings: Mapping[str, Any],
) -> Transition:
    with TemporaryDirectory() as folder:
        data = SynthesisData(
            path or Path(folder) / "store", num_transitions, spec=model.spec, chunk_size=5_000, seed=seed
        )
        callbacks = [StoreWriterCallback(data), *([ShowProgress("synthesis")] if progress else [])]
        _trainer(callbacks=callbacks, **settings).predict(model, datamodule=data, return_predictions=False)
        store = TransitionStore.open(data.path)
        return model.spec.unflatten(store.mapped if path else store.mapped.clone())


def _trainer(**settings: Any) -> pl.Trainer:
    return pl.Trainer(
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )
