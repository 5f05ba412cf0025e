"""Stage 1: the frozen encoder of the pixels, and what may stand in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.agents.agent import Agent
from lightning_synther.data.datamodules import PixelData
from lightning_synther.networks.encoders import LatentEncoder
from lightning_synther.networks.frozen import FrozenEncoder
from lightning_synther.stages.config.dataset import DatasetConfig
from lightning_synther.stages.config.module import ModuleConfig
from lightning_synther.stages.config.sections import StageTraining
from lightning_synther.stages.real.pixel_dataset import PixelDataset, check_rendering
from lightning_synther.stages.record.ensure import ensure
from lightning_synther.stages.record.ranks import is_rank_zero
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer.training import TrainerFactory


class EncoderSource(ABC):
    """Where the encoder of a chain comes from."""

    @abstractmethod
    def preview(self) -> FrozenEncoder:
        """The encoder with all but its weights; raises `ConfigError` for what it cannot be."""

    @abstractmethod
    def provide(self, pixels: PixelDataset) -> Stage:
        """Bring the stage to *finished*; its final checkpoint holds the encoder."""

    def prepare(self) -> None:  # noqa: B027  # most have nothing to prepare
        """Whatever may fail soon, before hours of rendering."""

    @property
    def twin(self) -> Agent | None:
        """An untrained twin of the agent that the encoder belongs to; None where that is no agent."""
        return None

    def agent(self, encoder: Stage) -> Agent:
        """The agent that the encoder belongs to, heads included, on the latents that its own encoder makes."""
        raise NotImplementedError(f"{type(self).__name__} belongs to no agent")

    def features(self, pixels: PixelDataset, encoder: FrozenEncoder) -> NDArray[np.float32] | None:
        """What is kept of every unshifted frame, so that ``encoder`` need not look at it again."""
        return None


@dataclass(frozen=True)
class TrainedEncoder(EncoderSource):
    """A pixel agent, trained here, whose convolutions and trunks become the frozen encoder.

    Attributes:
        model: the agent, without the dataset's sizes.
    """

    factory: TrainerFactory
    model: ModuleConfig
    training: StageTraining
    dataset: DatasetConfig

    def preview(self) -> FrozenEncoder:
        """See `EncoderSource`."""
        self.training.check("encoder")
        return LatentEncoder.from_agent(self.twin)

    @cached_property
    def twin(self) -> Agent:
        """See `EncoderSource`."""
        return self._build(1)

    def _build(self, action_dim: int) -> Agent:
        agent = self.model.build(observation="pixels", action_dim=action_dim, env=self.dataset.env())
        assert isinstance(agent, Agent)
        return agent

    def provide(self, pixels: PixelDataset) -> Stage:
        """See `EncoderSource`."""
        training, seed = self.training, self.factory.seed
        inputs = {
            "dataset": pixels.fingerprint,
            "windows": {**self.dataset.windows(), "holdout_fraction": self.dataset.holdout_fraction},
            "env": self.dataset.env(),
            "model": self.model.inputs(),
            "training": training.result_inputs(self.factory.precision),
            "seed": seed,
            **pixels.subset,
        }
        length = self.model.extensible("training.max_steps")
        stage = Stage(self.factory.run_dir, "encoder", inputs, length)

        def make() -> tuple[Agent, PixelData]:
            data = PixelData(
                pixels.train,
                batch_size=training.batch_size,
                updates_per_step=training.updates_per_step,
                seed=seed,
            )
            return self._build(pixels.action_dim), data

        def build() -> dict[str, Any]:
            if is_rank_zero():
                check_rendering(self.dataset.env())
            self.factory.train(stage, training, make)
            return {}

        ensure(stage, build)
        return stage

    def agent(self, encoder: Stage) -> Agent:
        """See `EncoderSource`."""
        agent = self.model.build(
            observation="latents",
            heads="pretrained",
            encoder_checkpoint=str(encoder.final_checkpoint),
            env=self.dataset.env(),
        )
        assert isinstance(agent, Agent)
        return agent
