"""In place of stage 1: the finished encoder of another run, so that several seeds or sizes of data share one."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_synther.agents.agent import Agent
from lightning_synther.data.contents import file_contents
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.encoders import read_checkpoint
from lightning_synther.networks.frozen import FrozenEncoder, encoder_from_state
from lightning_synther.stages.config.dataset import DatasetConfig
from lightning_synther.stages.config.module import import_class
from lightning_synther.stages.config.sizes import check_env
from lightning_synther.stages.real.encoder import EncoderSource
from lightning_synther.stages.real.pixel_dataset import PixelDataset
from lightning_synther.stages.record.ensure import ensure_on_rank_zero
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer.training import TrainerFactory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GivenEncoder(EncoderSource):
    """The encoder in ``checkpoint``, of a pixel agent or a timm backbone, trained for the dataset's environment.

    The file is copied into the run, which then needs nothing of the other one. What data it has seen is that run's
    affair: a run on a part of a dataset says so.
    """

    factory: TrainerFactory
    checkpoint: str
    dataset: DatasetConfig

    @cached_property
    def _content(self) -> dict[str, Any]:
        try:
            return read_checkpoint(self.checkpoint)
        except DataError as error:
            raise DataError(f"encoder.checkpoint: {error}") from None

    @property
    def _hparams(self) -> Mapping[str, Any]:
        hparams: Mapping[str, Any] = self._content["hyper_parameters"]
        return hparams

    def preview(self) -> FrozenEncoder:
        """See `EncoderSource`: refuses a checkpoint without encoder, or of another environment."""
        check_env(self.dataset.env(), self._hparams.get("env"), self.checkpoint)
        try:
            encoder = encoder_from_state(self._hparams, self._content["state_dict"])
        except DataError as error:
            raise DataError(f"encoder.checkpoint {self.checkpoint}: {error}") from None
        sizes = {"image_size": self.dataset.image_size, "frame_stack": self.dataset.frame_stack}
        check_env(sizes, encoder.config, self.checkpoint)
        return encoder

    @cached_property
    def twin(self) -> Agent | None:
        """See `EncoderSource`."""
        return self._agent() if self._hparams.get("observation") == "pixels" else None

    def _agent(self, **arguments: Any) -> Agent:
        agent = import_class(self._content["class_path"])(**{**self._hparams, **arguments})
        assert isinstance(agent, Agent)
        return agent

    def provide(self, pixels: PixelDataset) -> Stage:
        """See `EncoderSource`."""
        path = Path(self.checkpoint)
        inputs = {
            "checkpoint": file_contents(path),
            "env": self.dataset.env(),
        }
        found = self._hparams.get("action_dim")
        if found != pixels.action_dim:
            raise ConfigError(
                f"encoder.checkpoint {path} belongs to actions of {found} numbers, the dataset has "
                f"{pixels.action_dim}: give the encoder of a run on this dataset"
            )
        stage = Stage(self.factory.run_dir, "encoder", inputs)

        def build() -> dict[str, Any]:
            log.info(
                "encoder: taken from %s, so encoder.model and encoder.training are not used%s",
                path,
                "; it has seen what that run was trained on, not this run's part of the data"
                if pixels.subset
                else "",
            )
            partial = stage.final_checkpoint.with_name("final.ckpt.partial")
            shutil.copyfile(path, partial)
            partial.replace(stage.final_checkpoint)
            return {"taken_from": str(path)}

        ensure_on_rank_zero(stage, build)
        return stage

    def agent(self, encoder: Stage) -> Agent:
        """See `EncoderSource`."""
        return self._agent(
            observation="latents",
            heads="pretrained",
            encoder_checkpoint=str(encoder.final_checkpoint),
            env=self.dataset.env(),
        )
