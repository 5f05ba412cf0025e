"""Stages 1 to 3: from pixels to the two stores of latent transitions that the agent trains on.

``dataset -> encoder -> latents -> diffusion -> synthesis``, each an ordinary Trainer call (or a pass over the
data) on ordinary modules, remembered in the run directory by `Stage`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything

from lightning_synther.agents.agent import Agent
from lightning_synther.data.conditions import read_conditions
from lightning_synther.data.datamodules import PixelData, RowData
from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.networks.encoders import LatentEncoder
from lightning_synther.networks.frozen import FrozenEncoder, load_encoder
from lightning_synther.networks.timm_encoder import TimmEncoder
from lightning_synther.stages.backbone import Backbone
from lightning_synther.stages.config import (
    DatasetConfig,
    DecoderConfig,
    LatentsConfig,
    MonitorConfig,
    StageTraining,
    SynthesisConfig,
)
from lightning_synther.stages.dataset import (
    PixelDataset,
    check_rendering,
    has_data,
    open_dataset,
    provide_dataset,
)
from lightning_synther.stages.decoder import Decoding
from lightning_synther.stages.ranks import barrier, is_rank_zero
from lightning_synther.stages.record import Stage
from lightning_synther.stages.synthesis import judge, make_prompted, sample_store
from lightning_synther.stages.training import (
    TrainerFactory,
    ensure,
    ensure_on_rank_zero,
    fit,
    stage_seed,
)
from lightning_synther.synthesis.conditions import COMPUTED, compute_conditions
from lightning_synther.synthesis.encode import encode_dataset
from lightning_synther.synthesis.monitor import FidelityMonitor
from lightning_synther.synthesis.relevance import critics
from lightning_synther.transition import TransitionSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModuleConfig:
    """A class and the arguments that the config file gives it; sizes are added when they are known."""

    cls: type[Any]
    init_args: Mapping[str, Any] = field(default_factory=dict)

    def build(self, **sizes: Any) -> Any:
        """Instantiate with the sizes that only the data tell."""
        return self.cls(**{**self.init_args, **sizes})

    def extensible(self, length: str) -> str | None:
        """``length``, the input that counts updates, if a longer training merely goes on where a shorter one ended.

        It does not where the learning rate decays over the whole length.
        """
        schedule = self.init_args.get("lr_schedule", "constant")
        return length if issubclass(self.cls, Agent) and schedule == "constant" else None

    def inputs(self) -> dict[str, Any]:
        """For the fingerprint of a stage."""
        return {"class": self.cls.__name__, **self.init_args}


@dataclass(frozen=True)
class Artefacts:
    """What the chain hands to the agent: paths, and the fingerprint of all that led to them."""

    encoder_checkpoint: Path
    real: Path
    synthetic: Path
    fingerprint: str


@dataclass(frozen=True)
class Chain:
    """The stages before the agent, as one config describes them."""

    factory: TrainerFactory
    dataset: DatasetConfig
    encoder: ModuleConfig
    encoder_training: StageTraining
    latents: LatentsConfig
    diffusion: ModuleConfig
    diffusion_training: StageTraining
    monitor: MonitorConfig
    synthesis: SynthesisConfig
    conditions: Sequence[str] = ()
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    @property
    def run_dir(self) -> Path:
        """The run directory."""
        return self.factory.run_dir

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.factory.seed

    def check(self) -> dict[str, Any]:
        """Sizes of the encoder that stage 1 will train.

        Raises `ConfigError` now for what a stage would refuse hours later; builds the networks to find out.
        """
        self.encoder_training.check("encoder")
        self.diffusion_training.check("diffusion")
        encoder = self._encoder_in_the_making()
        if self.backbone is not None and ("td_error" in self.conditions or self._guided_by_stage1):
            raise ConfigError(
                f"the encoder is {self.encoder.cls.__name__}, which is no agent: diffusion.conditions cannot hold "
                "td_error, and synthesis.policy_guidance needs a policy_checkpoint; or train a pixel agent as encoder"
            )
        spec = TransitionSpec(encoder.latent_dim, 1, self.dataset.gamma)
        sizes = dict.fromkeys(self.conditions, 1) or None  # those of one's own are known later
        model = self.diffusion.build(spec=spec.to_dict(), conditions=sizes)
        assert isinstance(model, LatentDiffusion)
        if all(name in COMPUTED for name in self.conditions):
            make_prompted(self.synthesis, model)
        return encoder.config

    def _encoder_in_the_making(self) -> FrozenEncoder:
        """The encoder, with all but its weights."""
        if self.backbone is not None:
            return self.backbone.make()
        agent = self.encoder.build(observation="pixels", action_dim=1, env=self.dataset.env())
        if "td_error" in self.conditions:
            assert isinstance(agent, Agent)
            critics(agent)
        return LatentEncoder.from_agent(agent)

    @property
    def _guided_by_stage1(self) -> bool:
        """Whether the policy that guides the samples is that of stage 1."""
        return self.synthesis.policy_guidance > 0 and self.synthesis.policy_checkpoint is None

    @cached_property
    def backbone(self) -> Backbone | None:
        """What is done in place of stage 1 where the encoder is a timm model."""
        if not issubclass(self.encoder.cls, TimmEncoder):
            return None
        return Backbone(self.encoder.init_args, self.dataset, self.run_dir, self.latents.batch_size)

    def run(self) -> Artefacts:
        """Bring every stage to *finished*, in order."""
        if self.backbone is not None and not (self.run_dir / "encoder" / "final.ckpt").exists():
            self.backbone.load()  # before hours of rendering: the hub may not answer
        encoder = self.train_encoder()
        latents = self.encode(encoder)
        diffusion = self.train_diffusion(latents, encoder)
        synthetic = self.synthesise(diffusion, latents, encoder)
        if self.decoder.max_steps:
            decoding = Decoding(self.factory, self.decoder, self.pixels, latents, self.latents.views)
            decoding.show(decoding.train(), synthetic)
        return Artefacts(
            encoder_checkpoint=encoder.final_checkpoint,
            real=latents.directory / "train",
            synthetic=synthetic.directory / "store",
            fingerprint=synthetic.fingerprint,
        )

    @cached_property
    def pixels(self) -> PixelDataset:
        """Stage 0: the dataset, provided once by rank zero."""
        stage = Stage(self.run_dir, "dataset", self.dataset.files())

        def provide() -> dict[str, Any]:
            directory, source = provide_dataset(self.dataset)
            return {"directory": str(directory), "source": source}

        if is_rank_zero() and stage.status == "finished" and not has_data(Path(stage.results["directory"])):
            log.info("dataset: %s has gone", stage.results["directory"])
            stage.discard()
        results = ensure_on_rank_zero(stage, provide)
        if not is_rank_zero():
            barrier()  # rank zero inflates the frames, the others map its copy
        pixels = open_dataset(self.dataset, results["source"], Path(results["directory"]))
        if is_rank_zero():
            barrier()
        log.info(
            "dataset: %s, %s, %d episodes, return %.0f (mean), %d training transitions",
            pixels.directory,
            pixels.source,
            len(pixels.returns),
            pixels.returns.mean(),
            pixels.train.num_transitions,
        )
        return pixels

    def train_encoder(self) -> Stage:
        """Stage 1: a pixel agent, whose convolutions and trunks become the frozen encoder.

        A timm backbone trains nothing here: its features' principal components are fitted.
        """
        if self.backbone is not None:
            return self.backbone.fit(self.pixels, self.factory.device)
        inputs = {
            "dataset": self.pixels.fingerprint,
            "windows": {**self.dataset.windows(), "holdout_fraction": self.dataset.holdout_fraction},
            "env": self.dataset.env(),
            "model": self.encoder.inputs(),
            "training": self.encoder_training.result_inputs(),
            "seed": self.seed,
        }
        stage = Stage(self.run_dir, "encoder", inputs, self.encoder.extensible("training.max_steps"))
        training = self.encoder_training

        def build() -> dict[str, Any]:
            if is_rank_zero():
                check_rendering(self.dataset.env())
            seed_everything(stage_seed(self.seed, stage.name), verbose=False)
            agent = self.encoder.build(
                observation="pixels", action_dim=self.pixels.action_dim, env=self.dataset.env()
            )
            data = PixelData(
                self.pixels.train,
                batch_size=training.batch_size,
                updates_per_step=training.updates_per_step,
                seed=self.seed,
            )
            fit(stage, self.factory.trainer(stage, training), agent, data)
            return {}

        ensure(stage, build)
        return stage

    def encode(self, encoder: Stage) -> Stage:
        """Stage 2a: every training and held-out transition as latents, once."""
        stage = Stage(
            self.run_dir, "latents", {"encoder": encoder.fingerprint, "latents": asdict(self.latents)}
        )

        def build() -> dict[str, Any]:
            network = load_encoder(encoder.final_checkpoint).to(self.factory.device)
            features = None
            if self.backbone is not None and not self.latents.shift:
                features = self.backbone.features(self.pixels, network)
            counts = {}
            for name, replay in (("train", self.pixels.train), ("heldout", self.pixels.heldout)):
                if replay is not None:
                    store = encode_dataset(
                        replay,
                        network,
                        stage.directory / name,
                        views=self.latents.views,
                        shift=self.latents.shift,
                        batch_size=self.latents.batch_size,
                        seed=self.seed,
                        fingerprint=stage.fingerprint,
                        features=features,
                    )
                    counts[f"{name}_transitions"] = len(store)
            return counts

        ensure_on_rank_zero(stage, build)
        return stage

    def _agent_on_latents(self, encoder: Stage) -> Agent:
        """The agent of stage 1, heads included, on the latents that its own encoder makes."""
        agent = self.encoder.build(
            observation="latents",
            heads="pretrained",
            encoder_checkpoint=str(encoder.final_checkpoint),
            env=self.dataset.env(),
        )
        assert isinstance(agent, Agent)
        return agent

    def train_diffusion(self, latents: Stage, encoder: Stage) -> Stage:
        """Stage 2b: the diffusion model over latent transitions."""
        training, names = self.diffusion_training, list(self.conditions)
        inputs = {
            "latents": latents.fingerprint,
            "model": self.diffusion.inputs(),
            "training": training.result_inputs(),
            "seed": self.seed,
        }
        if names:
            inputs["conditions"] = names
        stage = Stage(self.run_dir, "diffusion", inputs)

        def build() -> dict[str, Any]:
            train = TransitionStore.open(latents.directory / "train")
            heldout = latents.directory / "heldout"
            columns, sizes = None, None
            if names:
                if is_rank_zero():
                    compute_conditions(
                        [train.path, *([heldout] if heldout.exists() else [])],
                        names,
                        seed=self.seed,
                        agent=self._agent_on_latents(encoder) if "td_error" in names else None,
                        agent_fingerprint=encoder.fingerprint,
                    )
                barrier()
                columns, sizes = read_conditions(train.path, names)
            seed_everything(stage_seed(self.seed, stage.name), verbose=False)
            model = self.diffusion.build(spec=train.spec.to_dict(), conditions=sizes)
            assert isinstance(model, LatentDiffusion)
            model.fit_normalizer(train.rows, columns)
            data = RowData(
                str(latents.directory / "train"),
                heldout=str(heldout) if heldout.exists() else None,
                batch_size=training.batch_size,
                updates_per_step=training.updates_per_step,
                seed=self.seed,
                conditions=names,
            )
            trainer = self.factory.trainer(stage, training)
            if self.monitor.num_transitions:
                heldout_store = TransitionStore.open(heldout) if heldout.exists() else None
                trainer.callbacks.append(  # type: ignore[attr-defined]
                    FidelityMonitor(train, heldout_store, self.monitor.num_transitions)
                )
            fit(stage, trainer, model, data)
            return {}

        ensure(stage, build)
        return stage

    def synthesise(self, diffusion: Stage, latents: Stage, encoder: Stage) -> Stage:
        """Stage 3: the synthetic store, and how faithful it is."""
        config = self.synthesis
        inputs = {
            "diffusion": diffusion.fingerprint,
            "num_transitions": config.num_transitions,
            "chunk_size": config.chunk_size,
            "precision": config.precision,
            "seed": self.seed,
            **config.steering(),
            **config.filtering(),
        }
        stage = Stage(self.run_dir, "synthesis", inputs)

        def build() -> dict[str, Any]:
            model = LatentDiffusion.load_from_checkpoint(diffusion.final_checkpoint, map_location="cpu")
            store = sample_store(
                self.factory,
                model,
                stage.directory / "store",
                config,
                seed=self.seed,
                fingerprint=stage.fingerprint,
                agent=self._agent_on_latents(encoder) if self._guided_by_stage1 else None,
                real=latents.directory / "train",
            )
            if not is_rank_zero():
                return {}
            heldout = latents.directory / "heldout"
            scores = judge(
                self.factory,
                latents.directory / "train",
                stage.directory / "store",
                heldout if heldout.exists() else None,
                self.pixels.train,
                self.latents.views,
            )
            filtered = store.metadata.extra.get("counts")
            return {"transitions": config.num_transitions, "fidelity": scores, "filtered": filtered}

        ensure(stage, build)
        return stage
