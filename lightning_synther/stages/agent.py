"""Stage 4: train an agent on its stores, then score it in the environment.

The same stage trains whatever a config's `model`, `data` and `trainer` describe without the stages before it:
an online agent, an agent on stores that are given by hand, or a diffusion model alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch import seed_everything

from lightning_synther.agents.agent import Agent
from lightning_synther.data.conditions import read_conditions
from lightning_synther.data.state_dataset import played_env
from lightning_synther.data.store import StoreMetadata, TransitionStore
from lightning_synther.data.updates import UpdateData
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.networks.encoders import read_checkpoint
from lightning_synther.online.synthetic import OnlineSynthERData
from lightning_synther.stages.chain import Artefacts, ModuleConfig
from lightning_synther.stages.checkpoints import load_checkpoint
from lightning_synther.stages.config import DatasetConfig, EvaluationConfig, check_training
from lightning_synther.stages.data import EvaluationData
from lightning_synther.stages.ranks import barrier, is_rank_zero
from lightning_synther.stages.record import Stage
from lightning_synther.stages.resynthesis import Resynthesis
from lightning_synther.stages.training import (
    TrainerFactory,
    ensure,
    fit,
    instantiate,
    interruptible,
    stage_seed,
)
from lightning_synther.synthesis.conditions import compute_conditions

#: Settings of the final Trainer that the run decides itself.
OWN_TRAINER_SETTINGS = (
    "logger",
    "default_root_dir",
    "enable_model_summary",
    "num_sanity_val_steps",
    "max_epochs",
)
#: Settings of Lightning's automatic optimization, and what to do without them.
MANUAL_OPTIMIZATION = {
    "accumulate_grad_batches": "accumulate gradients for: raise data.batch_size instead, and remove it",
    "gradient_clip_val": "clip gradients for: remove it (a diffusion model has model.grad_clip)",
    "gradient_clip_algorithm": "clip gradients for: remove it (a diffusion model has model.grad_clip)",
}
#: Settings of the data that say how fast, not what.
NOT_INPUTS = {"updates_per_step", "load_limit"}
#: Settings of the data that are paths of stores.
STORES = ("real", "synthetic", "store", "heldout")


@dataclass(frozen=True)
class AgentStage:
    """Training and evaluation of one agent, as the `model`, `data` and `trainer` sections describe it.

    Attributes:
        name: folder in the run directory.
        artefacts: what the stages before made; None for an agent that needs none (states, online).
        data_overrides: arguments of the data that differ from the config (the real-only comparison).
        resynthesis: how an online run makes its synthetic transitions; None for any other.
    """

    factory: TrainerFactory
    name: str
    model: ModuleConfig
    data: ModuleConfig
    trainer: Mapping[str, Any]
    checkpoint_every: int
    keep_every: int
    evaluation: EvaluationConfig
    artefacts: Artefacts | None = None
    data_overrides: Mapping[str, Any] = field(default_factory=dict)
    resynthesis: Resynthesis | None = None

    def check(self, encoder_config: Mapping[str, Any] | None = None) -> None:
        """Raise `ConfigError` now for what would otherwise come out after the stages before.

        ``encoder_config`` holds the sizes of the encoder that they will train.
        """
        for key in OWN_TRAINER_SETTINGS:
            if self.trainer.get(key) is not None:
                raise ConfigError(f"trainer.{key} is given, but a run decides it itself: remove it")
        for key, remedy in MANUAL_OPTIMIZATION.items():
            if self.trainer.get(key) not in (None, 1 if key == "accumulate_grad_batches" else None):
                raise ConfigError(
                    f"trainer.{key} is {self.trainer[key]}, but an update has several losses and optimizers, "
                    f"which Lightning cannot {remedy}"
                )
        if self.keep_every < 0:
            raise ConfigError(f"keep_every is {self.keep_every}: give a number of updates, or 0 to keep none")
        check_training(
            "trainer",
            self.trainer.get("max_steps"),
            self.data.init_args.get("updates_per_step", 1),
            self.trainer.get("precision"),
        )
        args = self._data_args()
        data = self._build_data(args)
        decided = _decided_by_data(self.model, data)
        if self.resynthesis is not None and isinstance(data, OnlineSynthERData):
            agent = self.model.build(**decided)
            self.resynthesis.check(data.row_spec(agent), agent)
        if encoder_config is not None:
            self.model.build(env=args["dataset"].env(), action_dim=1, encoder_config=dict(encoder_config))

    def run(self) -> dict[str, Any]:
        """Train what is not trained, evaluate what is not evaluated; returns the scores."""
        training = self._train()
        if not issubclass(self.model.cls, Agent):
            return {}
        stage = Stage(
            self.factory.run_dir,
            self.name.replace("agent", "evaluation"),
            {
                "agent": training.fingerprint,
                "episodes": self.evaluation.episodes,
                "seed": self.evaluation.seed,
            },
        )

        def build() -> dict[str, Any]:
            agent = load_checkpoint(training.final_checkpoint)
            assert isinstance(agent, Agent)
            return evaluate(self.factory, "test", agent, EvaluationData(self.evaluation), logger=self.name)

        return ensure(stage, build)

    def _train(self) -> Stage:
        args = self._data_args()
        length = self.model.extensible("max_steps")
        stage = Stage(self.factory.run_dir, self.name, self._inputs(args), length)

        def build() -> dict[str, Any]:
            if issubclass(self.model.cls, LatentDiffusion) and args.get("conditions"):
                if is_rank_zero():
                    stores = [args[key] for key in ("store", "heldout") if args.get(key)]
                    compute_conditions(stores, args["conditions"], seed=self.factory.seed)
                barrier()
            seed_everything(stage_seed(self.factory.seed, "agent"), verbose=False)
            model, data = self._build(args)
            fit(stage, self._trainer(stage), model, data)
            return data.results() if isinstance(data, UpdateData) else {}

        ensure(stage, build)
        return stage

    def _data_args(self) -> dict[str, Any]:
        args = {**self.data.init_args, **self.data_overrides}
        if isinstance(args.get("dataset"), dict):
            args["dataset"] = DatasetConfig(**args["dataset"])
        return args

    def _inputs(self, data_args: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {
            "model": self.model.inputs(),
            "data": {k: v for k, v in data_args.items() if k not in {*NOT_INPUTS, *STORES, "dataset"}},
            "max_steps": self.trainer["max_steps"],
            "precision": str(self.trainer.get("precision")),
            "seed": self.factory.seed,
            "stages": self.artefacts.fingerprint if self.artefacts else None,
        }
        if self.resynthesis is not None:
            inputs["resynthesis"] = self.resynthesis.inputs()
        if self.artefacts is None:
            inputs |= {key: _contents(data_args[key]) for key in STORES if data_args.get(key)}
            if checkpoint := self.model.init_args.get("encoder_checkpoint"):
                inputs["encoder"] = hashlib.blake2b(Path(checkpoint).read_bytes(), digest_size=8).hexdigest()
        return inputs

    def _build(self, args: Mapping[str, Any]) -> tuple[pl.LightningModule, pl.LightningDataModule]:
        if self.artefacts is None:
            data = self._build_data(args)
            decided = _decided_by_data(self.model, data)
            return self.model.build(**decided, **_sizes(self.model, args)), data
        agent = self.model.build(
            env=args["dataset"].env(), encoder_checkpoint=str(self.artefacts.encoder_checkpoint)
        )
        stores = {"real": str(self.artefacts.real), "synthetic": str(self.artefacts.synthetic)}
        return agent, self._build_data({**args, **stores})

    def _build_data(self, args: Mapping[str, Any]) -> pl.LightningDataModule:
        data = cast(pl.LightningDataModule, self.data.cls(**args))
        if isinstance(data, OnlineSynthERData):
            data.resynthesise = self.resynthesis
        return data

    def _trainer(self, stage: Stage) -> pl.Trainer:
        settings = {key: instantiate(value) for key, value in self.trainer.items() if value is not None}
        settings = {"log_every_n_steps": 1, **settings, **self.factory.settings()}
        callbacks = settings.pop("callbacks", [])
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if isinstance(settings.get("val_check_interval"), int):
            settings["check_val_every_n_epoch"] = None
        else:
            settings["limit_val_batches"] = 0
        return pl.Trainer(
            default_root_dir=self.factory.run_dir,
            logger=self.factory.logger(stage.name),
            callbacks=self.factory.callbacks(stage, self.checkpoint_every, self.keep_every) + callbacks,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            **settings,
        )


def _contents(path: str) -> dict[str, Any]:
    """What a store given by hand holds, wherever it lies."""
    TransitionStore.open(path)
    return {key: value for key, value in asdict(StoreMetadata.read(Path(path))).items() if key != "extra"}


def _decided_by_data(model: ModuleConfig, data: pl.LightningDataModule) -> dict[str, Any]:
    """Arguments of an agent that its data decide; `ConfigError` where the config says otherwise."""
    if not (isinstance(data, UpdateData) and issubclass(model.cls, Agent)):
        return {}
    decided = data.agent_arguments()
    for key, value in decided.items():
        given = model.init_args.get(key)
        pairs = {key: (given, value)}
        if isinstance(given, dict):
            pairs = {f"{key}.{name}": (part, value.get(name)) for name, part in given.items()}
        for name, (ours, theirs) in pairs.items():
            if ours is not None and ours != theirs:
                raise ConfigError(
                    f"model.{name} is {ours!r}, but the data decide it and have {theirs!r}: remove it"
                )
    return decided


def _sizes(model: ModuleConfig, data_args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a model that the data given by hand, or the encoder of their latents, decide."""
    if issubclass(model.cls, LatentDiffusion):
        store = next((data_args[key] for key in STORES if data_args.get(key)), None)
        if store is None:
            raise ConfigError("a diffusion model takes its sizes from its data: give the path of a store")
        names = data_args.get("conditions")
        sizes = read_conditions(store, names)[1] if names else None
        return {"spec": TransitionStore.open(store).spec.to_dict(), "conditions": sizes}
    checkpoint = model.init_args.get("encoder_checkpoint")
    if checkpoint is None:
        return _sizes_of_states(model, data_args)
    theirs = read_checkpoint(checkpoint)["hyper_parameters"].get("env")
    dataset: DatasetConfig | None = data_args.get("dataset")
    ours = model.init_args.get("env") or (dataset.env() if dataset else theirs)
    check_env(ours, theirs, checkpoint)
    return {"env": ours}


def _sizes_of_states(model: ModuleConfig, data_args: Mapping[str, Any]) -> dict[str, Any]:
    """What an agent on states takes from its store, where the config does not give it."""
    path = data_args.get("real") or data_args.get("synthetic")
    if path is None or model.init_args.get("observation") != "states":
        return {}
    store = TransitionStore.open(path)
    known: dict[str, Any] = {
        "observation_dim": store.spec.observation_dim,
        "action_dim": store.spec.action_dim,
    }
    if env := played_env(store.metadata.extra):
        known["env"] = env
    return {name: value for name, value in known.items() if model.init_args.get(name) is None}


def check_env(
    ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None, checkpoint: str | Path
) -> None:
    """Raise `ConfigError` where the config's environment is not the one that a checkpoint was trained for."""
    for key, value in (ours or {}).items():
        found = (theirs or {}).get(key, value)
        if found != value:
            raise ConfigError(
                f"the config's {key} is {value}, but checkpoint {checkpoint} was trained on {key} {found}: "
                "give a config or a checkpoint of the same dataset"
            )


def evaluate(
    factory: TrainerFactory, verb: str, agent: Agent, data: pl.LightningDataModule, logger: str = "evaluation"
) -> dict[str, Any]:
    """Run Lightning's validation or test loop, in which a batch is episode seeds; returns the scores."""
    trainer = factory.plain_trainer(logger)
    with interruptible(trainer):
        getattr(trainer, verb)(agent, datamodule=data, verbose=False)
    return dict(agent.eval_results)
