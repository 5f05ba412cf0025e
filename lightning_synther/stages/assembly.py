"""A parsed config as a `Chain`: which source its data mean, and the sections that describe its stages."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from lightning_synther.data.subset import Subset
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.envs.config import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.networks.timm_encoder import TimmEncoder
from lightning_synther.online.synthetic import OnlineSynthERData
from lightning_synther.stages.chain import Chain
from lightning_synther.stages.config.dataset import DatasetConfig, StateDatasetConfig
from lightning_synther.stages.config.module import ModuleConfig, import_class
from lightning_synther.stages.config.sections import (
    DecoderConfig,
    LatentsConfig,
    MonitorConfig,
    ResynthesisConfig,
    StageTraining,
)
from lightning_synther.stages.config.synthesis import SynthesisConfig
from lightning_synther.stages.data import ChainData, SynthERData, subset_of
from lightning_synther.stages.real.backbone import Backbone
from lightning_synther.stages.real.encoder import EncoderSource, TrainedEncoder
from lightning_synther.stages.real.given_encoder import GivenEncoder
from lightning_synther.stages.real.pixels import PixelSource
from lightning_synther.stages.real.states import StateSource
from lightning_synther.stages.synthetic.generation import Generation
from lightning_synther.stages.synthetic.resynthesis import Resynthesis
from lightning_synther.stages.trainer.training import TrainerFactory


def make_chain(config: Namespace, factory: TrainerFactory) -> Chain | None:
    """The stages before the agent of ``config``; None where its data name no dataset for them.

    Raises `ConfigError` for data or sections that do not say what the stages need.
    """
    if not issubclass(import_class(config.data.class_path), ChainData):
        return None
    data = config.data.init_args
    subset = subset_of(data.as_dict(), factory.seed)
    if data.real is not None:
        if not subset.is_whole:
            raise ConfigError(
                f"data.real is {data.real}, which is trained on as it is: remove data.fraction and "
                "data.num_real_episodes, which are of a data.dataset, or data.real"
            )
        return None
    if data.dataset is None:
        name = config.data.class_path.rpartition(".")[2]
        raise ConfigError(f"data is {name} with neither a `dataset` nor a `real` store: give one of them")
    pixels = issubclass(import_class(config.data.class_path), SynthERData)
    source = _pixels(config, factory, subset) if pixels else _states(config, factory, subset)
    return Chain(source, _generation(config, factory))


def make_resynthesis(config: Namespace, factory: TrainerFactory) -> Resynthesis | None:
    """How an online run of ``config`` makes synthetic transitions; None where its data make none."""
    if not issubclass(import_class(config.data.class_path), OnlineSynthERData):
        return None
    return Resynthesis(
        factory=factory,
        folder="agent/resynthesis",
        diffusion=ModuleConfig(LatentDiffusion, config.diffusion.model.as_dict()),
        training=StageTraining(**config.diffusion.training.as_dict()),
        synthesis=SynthesisConfig(**config.synthesis.as_dict()),
        config=ResynthesisConfig(**config.resynthesis.as_dict()),
        conditions=config.diffusion.conditions,
    )


def named_env(config: Namespace) -> dict[str, Any] | None:
    """What the data of ``config`` say of the environment that its agents act in; None where they say nothing."""
    if config.data is None:
        return None
    if (online := config.data.init_args.get("env")) is not None:
        given = online.as_dict() if isinstance(online, Namespace) else online
        played = EnvConfig.from_dict(given).to_dict()
        played.pop("reference_scores", None)  # which change no step
        return played
    if config.data.init_args.get("dataset") is None:
        return None
    settings = import_class(config.data.class_path).dataset_class(**config.data.init_args.dataset.as_dict())
    env: dict[str, Any] | None = settings.env()
    return env


def _generation(config: Namespace, factory: TrainerFactory) -> Generation:
    section = config.diffusion
    return Generation(
        factory=factory,
        model=ModuleConfig(LatentDiffusion, section.model.as_dict()),
        training=StageTraining(**section.training.as_dict()),
        monitor=MonitorConfig(**section.monitor.as_dict()),
        synthesis=SynthesisConfig(**config.synthesis.as_dict()),
        conditions=section.conditions,
    )


def _pixels(config: Namespace, factory: TrainerFactory, subset: Subset) -> PixelSource:
    if config.encoder.model is None and config.encoder.checkpoint is None:
        raise ConfigError(
            "data is SynthERData without a `real` store, so stage 1 has to train an encoder, but "
            "encoder.model is not given: name an agent class, as configs/vd4rl_cheetah.yaml does, or give "
            "encoder.checkpoint, the final.ckpt of one"
        )
    if config.data.init_args.dataset is None:
        raise ConfigError("data is SynthERData with neither a `dataset` nor a `real` store: give one of them")
    if config.model.init_args.get("encoder_checkpoint") is not None:
        raise ConfigError(
            "model.encoder_checkpoint is given, but the stages train an encoder themselves: remove it, "
            "or give the store that it made as data.real"
        )
    dataset = DatasetConfig(**config.data.init_args.dataset.as_dict())
    latents = LatentsConfig(**config.diffusion.latents.as_dict())
    return PixelSource(
        factory=factory,
        config=dataset,
        encoder=_encoder(config, factory, dataset, latents.batch_size),
        latents=latents,
        decoder=DecoderConfig(**config.decoder.as_dict()),
        subset=subset,
        encoder_sees_all=config.encoder.fraction == "all",
    )


def _states(config: Namespace, factory: TrainerFactory, subset: Subset) -> StateSource:
    single = not subset.is_whole and subset.fraction_of == "transitions"
    if single and "return_to_go" in config.diffusion.conditions:
        raise ConfigError(
            "diffusion.conditions holds return_to_go, which single transitions do not have: give "
            "data.fraction_of episodes, or another relevance"
        )
    return StateSource(factory, StateDatasetConfig(**config.data.init_args.dataset.as_dict()), subset)


def _encoder(
    config: Namespace, factory: TrainerFactory, dataset: DatasetConfig, batch_size: int
) -> EncoderSource:
    if config.encoder.checkpoint is not None:
        return GivenEncoder(factory, config.encoder.checkpoint, dataset)
    model = ModuleConfig.of(config.encoder.model)
    if issubclass(model.cls, TimmEncoder):
        return Backbone(factory, model.init_args, dataset, batch_size)
    return TrainedEncoder(factory, model, StageTraining(**config.encoder.training.as_dict()), dataset)
