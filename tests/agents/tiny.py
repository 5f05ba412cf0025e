"""Small agents and random transitions for tests."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_synther.agents import Agent, DrQV2
from lightning_synther.transition import Transition

IMAGE_SIZE = 21  # leaves a 4 x 4 feature map
FRAMES = (9, IMAGE_SIZE, IMAGE_SIZE)
ACTION_DIM = 2
SIZES = {"action_dim": ACTION_DIM, "hidden_dim": 16}
PIXELS = {**SIZES, "image_size": IMAGE_SIZE, "feature_dim": 8}


def make(cls: type[Agent] = DrQV2, **settings: Any) -> Agent:
    """A pixel agent, the same every time."""
    torch.manual_seed(0)
    return cls(**{**PIXELS, **settings})


def make_batch(counter: int, batch_size: int = 8, shape: tuple[int, ...] = FRAMES) -> Transition:
    """Transitions that depend on ``counter`` alone: frames for a three-dimensional shape, else vectors."""
    generator = torch.Generator().manual_seed(counter)

    def observe() -> torch.Tensor:
        if len(shape) == 3:
            return torch.randint(0, 256, (batch_size, *shape), dtype=torch.uint8, generator=generator)
        return torch.randn(batch_size, *shape, generator=generator)

    return Transition(
        observe(),
        torch.rand(batch_size, ACTION_DIM, generator=generator) * 2 - 1,
        torch.randn(batch_size, 1, generator=generator),
        observe(),
        torch.full((batch_size, 1), 0.99),
    )


class Batches(IterableDataset[list[Transition]]):
    """Endless training batches of ``updates_per_step`` updates; goes on where the Trainer is."""

    def __init__(self, module: pl.LightningModule, updates_per_step: int = 1, **options: Any) -> None:
        self.module, self.updates_per_step, self.options = module, updates_per_step, options

    def __iter__(self) -> Any:
        update = self.module.global_step
        while True:
            yield [make_batch(update + i, **self.options) for i in range(self.updates_per_step)]
            update += self.updates_per_step


def loader(module: pl.LightningModule, updates_per_step: int = 1, **options: Any) -> DataLoader[Any]:
    return DataLoader(Batches(module, updates_per_step, **options), batch_size=None)


def fixed(*batches: list[Transition]) -> DataLoader[Any]:
    """A loader of exactly these training batches."""
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def trainer(max_steps: int, **options: Any) -> pl.Trainer:
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    return pl.Trainer(max_steps=max_steps, **{"accelerator": "cpu", **quiet, **options})
