"""Stage 4: train an agent on its stores, then score it in the environment.

The same stage trains whatever a config's `model`, `data` and `trainer` describe without the stages before it:
an online agent, an agent on stores that are given by hand, or a diffusion model alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch import seed_everything

from lightning_synther.agents.agent import Agent
from lightning_synther.agents.stage1 import fitting_heads
from lightning_synther.data.contents import file_contents, store_contents
from lightning_synther.data.datamodules import RowData
from lightning_synther.data.updates import UpdateData
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.online.synthetic import OnlineSynthERData
from lightning_synther.stages.chain import Artefacts
from lightning_synther.stages.config.dataset import DatasetConfig, StateDatasetConfig
from lightning_synther.stages.config.module import ModuleConfig
from lightning_synther.stages.config.sections import EvaluationConfig, check_training
from lightning_synther.stages.config.sizes import STORES, decided_by_data, sizes_from_stores
from lightning_synther.stages.config.trainer import check_trainer
from lightning_synther.stages.data import SUBSET
from lightning_synther.stages.evaluation import evaluate
from lightning_synther.stages.real.source import Preview
from lightning_synther.stages.record.ensure import ensure
from lightning_synther.stages.record.ranks import barrier, is_rank_zero
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.synthetic.resynthesis import Resynthesis
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from lightning_synther.stages.trainer.training import TrainerFactory, fit, instantiate, stage_seed
from lightning_synther.synthesis.conditions import compute_conditions

log = logging.getLogger(__name__)

#: Settings of the data that say how fast, not what; and those that the stages before fingerprint.
NOT_INPUTS = {"updates_per_step", "load_limit", "dataset", *STORES, *SUBSET}


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

    def check(self, preview: Preview | None = None) -> None:
        """Raise `ConfigError` now for what would otherwise come out after the stages before.

        ``preview`` is what these will make.
        """
        check_trainer(self.trainer)
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
        decided = decided_by_data(self.model, data)
        agent = self.model.build(**decided) if decided else None  # which refuses what it cannot learn with
        if agent is not None and self.resynthesis is not None and isinstance(data, OnlineSynthERData):
            self.resynthesis.check(data.row_spec(agent), agent)
        if preview is not None:
            self._check_against(preview, args["dataset"])

    def _check_against(self, preview: Preview, dataset: DatasetConfig | StateDatasetConfig) -> None:
        found = self.model.init_args.get("observation")
        if found != preview.observation:
            raise ConfigError(
                f"model.observation is {found!r}, but the agent is trained on {preview.observation}: give "
                f"model.observation {preview.observation}"
            )
        known: dict[str, Any] = {"observation_dim": 1}
        if preview.encoder_config is not None:
            known = {"encoder_config": dict(preview.encoder_config)}
        agent = self.model.build(env=dataset.env(), action_dim=1, **known)
        if preview.agent is not None and self.model.init_args.get("heads") == "pretrained":
            fitting_heads(agent, preview.agent.state_dict())

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
            if agent.env is None:
                log.info("%s: not scored, as its data name no environment: give model.env", self.name)
                return {}
            return evaluate(self.factory, "test", agent, self.evaluation, logger=self.name)

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
            fit(stage, self._trainer(stage, model, data), model, data)
            return data.results() if isinstance(data, UpdateData) else {}

        ensure(stage, build)
        return stage

    def _data_args(self) -> dict[str, Any]:
        args = {**self.data.init_args, **self.data_overrides}
        if isinstance(args.get("dataset"), dict):
            args["dataset"] = self.data.cls.dataset_class(**args["dataset"])
        return args

    def _inputs(self, data_args: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {
            "model": self.model.inputs(),
            "data": {k: v for k, v in data_args.items() if k not in NOT_INPUTS},
            "max_steps": self.trainer["max_steps"],
            "precision": str(self.trainer.get("precision")),
            "seed": self.factory.seed,
            "stages": self.artefacts.fingerprint if self.artefacts else None,
        }
        if self.trainer.get("callbacks"):  # one may end the training, or change it
            inputs["callbacks"] = self.trainer["callbacks"]
        if self.resynthesis is not None:
            inputs["resynthesis"] = self.resynthesis.inputs()
        if self.artefacts is None:
            inputs |= {key: store_contents(data_args[key]) for key in STORES if data_args.get(key)}
            if checkpoint := self.model.init_args.get("encoder_checkpoint"):
                inputs["encoder"] = file_contents(checkpoint)
        return inputs

    def _build(self, args: Mapping[str, Any]) -> tuple[pl.LightningModule, pl.LightningDataModule]:
        if self.artefacts is None:
            data = self._build_data(args)
            decided = decided_by_data(self.model, data)
            return self.model.build(**decided, **sizes_from_stores(self.model, args)), data
        stores = {"real": str(self.artefacts.real), "synthetic": str(self.artefacts.synthetic)}
        args = {**args, **stores}
        if self.artefacts.encoder_checkpoint is None:
            return self.model.build(**sizes_from_stores(self.model, args)), self._build_data(args)
        agent = self.model.build(
            env=args["dataset"].env(), encoder_checkpoint=str(self.artefacts.encoder_checkpoint)
        )
        return agent, self._build_data(args)

    def _build_data(self, args: Mapping[str, Any]) -> pl.LightningDataModule:
        data = cast(pl.LightningDataModule, self.data.cls(**args))
        if isinstance(data, OnlineSynthERData):
            data.resynthesise = self.resynthesis
        return data

    def _trainer(self, stage: Stage, model: pl.LightningModule, data: pl.LightningDataModule) -> pl.Trainer:
        settings = {key: instantiate(value) for key, value in self.trainer.items() if value is not None}
        settings = {"log_every_n_steps": 1, **settings, **self.factory.settings()}
        callbacks = settings.pop("callbacks", [])
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        updates_per_step = data.updates_per_step if isinstance(data, UpdateData) else 1
        scored = getattr(model, "env", {}) is not None
        if isinstance(data, RowData) and data.heldout is None and settings.get("val_check_interval"):
            log.warning(
                "%s: trainer.val_check_interval is %s, but there is nothing to validate on: give data.heldout, or set "
                "it to null",
                self.name,
                settings["val_check_interval"],
            )
        if scored and isinstance(settings.get("val_check_interval"), int):
            settings["check_val_every_n_epoch"] = None
        else:
            settings |= {"val_check_interval": None, "limit_val_batches": 0}
        return pl.Trainer(
            default_root_dir=self.factory.run_dir,
            logger=self.factory.logger(stage.name),
            callbacks=[
                *self.factory.callbacks(stage, self.checkpoint_every, updates_per_step, self.keep_every),
                *callbacks,
            ],
            num_sanity_val_steps=0,
            enable_model_summary=False,
            **settings,
        )
