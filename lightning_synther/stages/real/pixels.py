"""Pixels as a source of transitions: a dataset of frames, the encoder, and the frames' latents, made once."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_synther.data.store import TransitionStore
from lightning_synther.data.subset import Subset
from lightning_synther.networks.frozen import load_encoder
from lightning_synther.stages.config.dataset import DatasetConfig
from lightning_synther.stages.config.sections import DecoderConfig, LatentsConfig
from lightning_synther.stages.real.decoder import Decoding
from lightning_synther.stages.real.encoder import EncoderSource
from lightning_synther.stages.real.local_files import why_unusable
from lightning_synther.stages.real.pixel_dataset import PixelDataset, open_dataset, provide_dataset
from lightning_synther.stages.real.source import Preview, RealTransitions
from lightning_synther.stages.record.ensure import ensure_on_rank_zero
from lightning_synther.stages.record.ranks import barrier, is_rank_zero
from lightning_synther.stages.record.stage import Stage, flatten_inputs
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.synthesis.encode import encode_dataset
from lightning_synther.synthesis.neighbours import neighbour_figure
from lightning_synther.synthesis.projector import Thumbnails

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelSource:
    """The stages from a dataset of frames to two stores of latent transitions, as one config describes them.

    Attributes:
        subset: part of the training episodes that is encoded, and so all that the later stages see.
        encoder_sees_all: whether the encoder is made of all training episodes nevertheless.
    """

    factory: TrainerFactory
    config: DatasetConfig
    encoder: EncoderSource
    latents: LatentsConfig
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    subset: Subset = field(default_factory=Subset)
    encoder_sees_all: bool = False

    def preview(self) -> Preview:
        """See `Source`."""
        encoder = self.encoder.preview()
        return Preview(
            observation="latents",
            observation_dim=encoder.latent_dim,
            gamma=self.config.gamma,
            agent=self.encoder.twin,
            no_agent=f"the encoder is {type(encoder).__name__}, which is no agent (train a pixel agent instead)",
            encoder_config=encoder.config,
        )

    def provide(self) -> RealTransitions:
        """See `Source`."""
        if not (self.factory.run_dir / "encoder" / "final.ckpt").exists():
            self.encoder.prepare()
        encoder = self.encoder.provide(self.dataset.whole() if self.encoder_sees_all else self.dataset)
        return RealTransitions(
            stage=self.encode(encoder),
            encoder_checkpoint=encoder.final_checkpoint,
            agent_fingerprint=encoder.fingerprint,
            make_agent=partial(self.encoder.agent, encoder),
            pictures={"nearest_frames": self._nearest_frames},
            thumbnails=Thumbnails(self.dataset.train, self.latents.views),
        )

    @cached_property
    def dataset(self) -> PixelDataset:
        """Stage 0: the dataset, provided once by rank zero."""
        stage = Stage(self.factory.run_dir, "dataset", self.config.files())

        def provide() -> dict[str, Any]:
            directory, source = provide_dataset(self.config)
            return {"directory": str(directory), "source": source}

        if is_rank_zero() and stage.status == "finished":
            why = why_unusable(Path(stage.results["directory"]), self.config)
            if why:
                log.info("dataset: %s", why)
                stage.discard()
        results = ensure_on_rank_zero(stage, provide)
        if not is_rank_zero():
            barrier()  # rank zero inflates the frames, the others map its copy
        pixels = open_dataset(self.config, results["source"], Path(results["directory"]), self.subset)
        if is_rank_zero():
            barrier()
        log.info(
            "dataset: %s, %s, %d episodes, return %.0f (mean), %d training transitions%s",
            pixels.directory,
            pixels.source,
            len(pixels.returns),
            pixels.returns.mean(),
            pixels.train.num_transitions,
            "" if self.subset.is_whole else f" of {pixels.every.num_transitions}",
        )
        return pixels

    def encode(self, encoder: Stage) -> Stage:
        """Every training and held-out transition as latents, once."""
        stage = Stage(
            self.factory.run_dir,
            "latents",
            {
                "encoder": encoder.fingerprint,
                "latents": asdict(self.latents),
                **self._unseen(encoder),
                **self.subset.inputs(),
            },
        )

        def build() -> dict[str, Any]:
            network = load_encoder(encoder.final_checkpoint).to(self.factory.device)
            features = None if self.latents.shift else self.encoder.features(self.dataset, network)
            counts = {}
            for name, replay in (("train", self.dataset.train), ("heldout", self.dataset.heldout)):
                if replay is not None:
                    store = encode_dataset(
                        replay,
                        network,
                        stage.directory / name,
                        views=self.latents.views,
                        shift=self.latents.shift,
                        batch_size=self.latents.batch_size,
                        seed=self.factory.seed,
                        fingerprint=stage.fingerprint,
                        features=features,
                    )
                    counts[f"{name}_transitions"] = len(store)
            return counts

        ensure_on_rank_zero(stage, build)
        return stage

    def _unseen(self, encoder: Stage) -> dict[str, Any]:
        """What the latents depend on and the encoder's inputs lack: one of another run knows nothing of these data."""
        config = self.config
        inputs = {
            "dataset": self.dataset.fingerprint,
            "windows": {**config.windows(), "holdout_fraction": config.holdout_fraction},
            **({"seed": self.factory.seed} if self.latents.shift else {}),
        }
        return {key: value for key, value in flatten_inputs(inputs).items() if key not in encoder.inputs}

    def _nearest_frames(self, real: TransitionStore, made: TransitionStore) -> Figure:
        views = self.latents.views
        return neighbour_figure(self.dataset.train, real.rows, made.rows, real.spec, views=views)

    def show(self, real: RealTransitions, synthetic: Stage) -> None:
        """See `Source`: synthetic latents seen through a decoder."""
        if self.decoder.max_steps:
            decoding = Decoding(self.factory, self.decoder, self.dataset, real.stage, self.latents.views)
            decoding.show(decoding.train(), synthetic)
