"""On request, beside the other stages: a decoder of the latents, and synthetic transitions seen through it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from lightning_synther.data.store import TransitionStore
from lightning_synther.evaluation.board import tag
from lightning_synther.stages.config.sections import DecoderConfig
from lightning_synther.stages.real.pixel_dataset import PixelDataset
from lightning_synther.stages.record.ensure import ensure, ensure_on_rank_zero
from lightning_synther.stages.record.ranks import is_rank_zero
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.synthesis.decoder import (
    DecoderData,
    LatentDecoder,
    decoded_figure,
    load_decoder,
    psnr,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoding:
    """The decoder of one run's latents.

    Attributes:
        pixels: the frames that the latents were made from.
        latents: the stage that made them, ``views`` rows a transition.
    """

    factory: TrainerFactory
    config: DecoderConfig
    pixels: PixelDataset
    latents: Stage
    views: int

    def train(self) -> Stage:
        """Train the decoder; its result says how well it sees frames."""
        config, seed = self.config, self.factory.seed
        inputs = {
            "latents": self.latents.fingerprint,
            "model": {"width": config.width, "lr": config.lr},
            "training": config.training().result_inputs(self.factory.precision),
            "seed": seed,
        }
        stage = Stage(self.factory.run_dir, "decoder", inputs, length="training.max_steps")

        def make() -> tuple[LatentDecoder, DecoderData]:
            data = self._data(heldout=False, batch_size=config.batch_size)
            columns = data.store.spec.fields["observation"]
            size = self.pixels.train.observation_shape[-1]
            model = LatentDecoder(columns.stop - columns.start, size, config.width, config.lr)
            model.fit_normalizer(data.store.rows[:, columns])
            return model, data

        def build() -> dict[str, Any]:
            self.factory.train(stage, config.training(), make)
            if not is_rank_zero():
                return {}
            results = self._judge(stage)
            logger = self.factory.logger(stage.name)
            logger.log_metrics({"val/psnr_db": results["psnr"]}, step=config.max_steps)
            logger.finalize("success")
            return results

        ensure(stage, build)
        return stage

    def show(self, decoder: Stage, synthesis: Stage) -> None:
        """Real and synthetic transitions as images, in TensorBoard."""
        inputs = {"decoder": decoder.fingerprint, "synthesis": synthesis.fingerprint}
        stage = Stage(self.factory.run_dir, "decoded", inputs)

        def build() -> dict[str, Any]:
            real = TransitionStore.open(self.latents.directory / "train")
            made = TransitionStore.open(synthesis.directory / "store", expected=real.spec)
            model = load_decoder(decoder.final_checkpoint)
            figure = decoded_figure(
                model, self.pixels.train, real.rows, made.rows, real.spec, views=self.views
            )
            logger = self.factory.logger("decoder")
            logger.experiment.add_figure(tag(logger, "panels/1_decoded_frames"), figure, 0)
            logger.finalize("success")
            return {}

        ensure_on_rank_zero(stage, build)

    def _data(self, heldout: bool, batch_size: int) -> DecoderData:
        replay = self.pixels.heldout if heldout else self.pixels.train
        assert replay is not None
        path = self.latents.directory / ("heldout" if heldout else "train")
        return DecoderData(path, replay, self.views, batch_size, self.factory.seed)

    def _judge(self, stage: Stage) -> dict[str, Any]:
        """How well frames are seen again, of held-out episodes where there are any."""
        heldout = self.pixels.heldout is not None
        pairs = self._data(heldout, batch_size=256).batches(range(1))[0]
        score, which = (
            psnr(load_decoder(stage.final_checkpoint), pairs),
            "held-out" if heldout else "training",
        )
        log.info("decoder: %.1f dB on %s frames", score, which)
        return {"psnr": score, "psnr_of": which}
