"""States as a source of transitions: offline data of any format, or a collection made here, as two stores."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.data.state_formats import load_states
from lightning_synther.data.subset import Subset
from lightning_synther.online.collect_states import collect_states
from lightning_synther.stages.config.dataset import StateDatasetConfig
from lightning_synther.stages.real.source import Preview, RealTransitions
from lightning_synther.stages.record.ensure import ensure_on_rank_zero
from lightning_synther.stages.record.ranks import from_rank_zero, is_rank_zero
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer.training import TrainerFactory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StateSource:
    """The stages from a dataset of states to its two stores, as one config describes them.

    Attributes:
        subset: part of the training transitions that all later stages see.
    """

    factory: TrainerFactory
    config: StateDatasetConfig
    subset: Subset = field(default_factory=Subset)

    def preview(self) -> Preview:
        """See `Source`; sizes come with the data, which are read first of all."""
        return Preview(
            observation="states",
            observation_dim=1,
            gamma=self.config.gamma,
            no_agent="the data are states, which no agent was trained on before",
        )

    def provide(self) -> RealTransitions:
        """See `Source`."""
        return RealTransitions(stage=self.store())

    def show(self, real: RealTransitions, synthetic: Stage) -> None:
        """See `Source`: states have no pictures."""

    @cached_property
    def dataset(self) -> StateDataset:
        """The data, on rank zero; collected first where no path is given."""
        path = self.config.path or str(self._collect())
        data = load_states(path, self.config.format, **self.config.options)
        log.info(
            "dataset: %s, %s, %d episodes, return %.1f (mean), %d transitions",
            path,
            self._origin,
            data.num_episodes,
            data.returns.mean(),
            len(data),
        )
        return data

    @property
    def _origin(self) -> str:
        return "collected" if self.config.path is None else "local"

    def _collect(self) -> Path:
        """Play the policy, unless that was done before; a killed collection leaves nothing under its name."""
        path, config = self.config.collected(), self.config
        if path.exists():
            return path
        partial = path.with_name(path.name + ".collecting")
        shutil.rmtree(partial, ignore_errors=True)
        collect_states(
            config.task,
            config.policy,
            str(partial),
            episodes=config.num_episodes,
            seed=config.collect_seed,
            action_repeat=config.action_repeat,
            time_limit=config.time_limit,
            gamma=config.gamma,
        )
        partial.rename(path)
        return path

    def provide_dataset(self) -> dict[str, Any]:
        """Stage 0: what the data are, and where they came from; returns what the stores depend on of them."""
        stage = Stage(self.factory.run_dir, "dataset", self.config.files())

        def build() -> dict[str, Any]:
            data = self.dataset
            return {
                "directory": self.config.path or str(self.config.collected()),
                "source": self._origin,
                "name": data.name,
                "episodes": data.num_episodes,
                "transitions": len(data),
            }

        ensure_on_rank_zero(stage, build)
        return from_rank_zero(self._identity() if is_rank_zero() else {})

    def _identity(self) -> dict[str, Any]:
        """The numbers, and what stores hand to agents: where these are scored, and between which returns."""
        data = self.dataset
        told = {"env": data.env, "reference_scores": data.reference_scores}
        return {
            "dataset": data.fingerprint,
            **{key: value for key, value in told.items() if value is not None},
        }

    def store(self) -> Stage:
        """The training transitions and the held-out episodes, as stores."""
        config = self.config
        inputs = {
            **self.provide_dataset(),
            "holdout_fraction": config.holdout_fraction,
            "gamma": config.gamma,
            **self.subset.inputs(),
        }
        stage = Stage(self.factory.run_dir, "states", inputs)

        def build() -> dict[str, Any]:
            data = self.dataset
            train, heldout = data.split_episodes(config.holdout_fraction)
            train = train.part(self.subset)
            parts = {"train": train} if heldout is None else {"train": train, "heldout": heldout}
            # In both, even if only one of them has any; parts have goals, and ends, of their own.
            terminal = any(bool(part.terminal.any()) for part in (data, *parts.values()))
            counts = {}
            for name, part in parts.items():
                path = stage.directory / name
                part.write(path, config.gamma, terminal=terminal, existing="resume")
                counts[f"{name}_transitions"] = len(part)
            if not self.subset.is_whole:
                log.info("states: %d of %d transitions are used for training", len(train), len(data))
            return counts

        ensure_on_rank_zero(stage, build)
        return stage
