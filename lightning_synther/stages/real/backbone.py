"""In place of stage 1: a timm backbone, which is not trained, and the principal components of its features."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.contents import file_contents
from lightning_synther.data.windows import stack_rows
from lightning_synther.networks.frozen import FrozenEncoder, save_encoder
from lightning_synther.networks.timm_encoder import SIZES, TimmEncoder
from lightning_synther.stages.config.dataset import DatasetConfig
from lightning_synther.stages.real.encoder import EncoderSource
from lightning_synther.stages.real.pixel_dataset import PixelDataset
from lightning_synther.stages.record.ensure import ensure_on_rank_zero
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.synthesis.features import features_folder, frame_features

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone(EncoderSource):
    """A `TimmEncoder` as a config describes it, for a dataset: no stage 1, its features' components are fitted.

    Attributes:
        init_args: of `TimmEncoder`, without the dataset's sizes.
        batch_size: frames encoded at once.
    """

    factory: TrainerFactory
    init_args: Mapping[str, Any]
    dataset: DatasetConfig
    batch_size: int

    def preview(self) -> TimmEncoder:
        """See `EncoderSource`."""
        given = {key: value for key, value in self.init_args.items() if key not in SIZES}
        return TimmEncoder(**given, frame_size=self.dataset.image_size, num_frames=self.dataset.frame_stack)

    @cached_property
    def _loaded(self) -> TimmEncoder:
        encoder = self.preview()
        encoder.load_weights()
        return encoder

    def load(self) -> TimmEncoder:
        """The encoder with its weights, loaded once."""
        if self.init_args.get("weights") == "random":
            log.warning(
                "encoder: the weights of %s are RANDOM (encoder.model.init_args.weights): good for trying the "
                "recipe out, not for results",
                self.init_args["model_name"],
            )
        return self._loaded

    def prepare(self) -> None:
        """See `EncoderSource`: the hub may not answer."""
        self.load()

    def provide(self, pixels: PixelDataset) -> Stage:
        """Features of every frame, and the principal components of the training split's."""
        inputs = {
            "dataset": pixels.fingerprint,
            "windows": {**self.dataset.windows(), "holdout_fraction": self.dataset.holdout_fraction},
            "env": self.dataset.env(),
            "model": {"class": TimmEncoder.__name__, **self.init_args},
            **pixels.subset,
        }
        path = Path(str(self.init_args.get("weights")))
        if path.is_file():
            inputs["weights"] = file_contents(path)
        stage = Stage(self.factory.run_dir, "encoder", inputs)

        def build() -> dict[str, Any]:
            encoder = self.load().to(self.factory.device)
            log.info("encoder: a frozen timm backbone, so encoder.training is not used")
            features = self.features(pixels, encoder)
            replay = pixels.train
            rows = np.unique(np.concatenate([replay.observation_rows, replay.next_rows]))
            kept = encoder.fit(features, stack_rows(rows, replay.episodes.lengths, replay.frame_stack))
            log.info(
                "encoder: %d components keep %.1f %% of the variance of %d features",
                encoder.config["num_components"],
                100 * kept,
                encoder.num_features,
            )
            save_encoder(
                encoder, stage.final_checkpoint, action_dim=pixels.action_dim, env=self.dataset.env()
            )
            return {"variance_kept": kept, "num_features": encoder.num_features}

        ensure_on_rank_zero(stage, build)
        return stage

    def features(self, pixels: PixelDataset, encoder: FrozenEncoder) -> NDArray[np.float32]:
        """See `EncoderSource`: features of every frame, from the cache where they are there."""
        assert isinstance(encoder, TimmEncoder)
        folder = features_folder(pixels.directory, self.factory.run_dir)
        return frame_features(pixels.train.episodes, encoder, folder, self.batch_size)
