"""Stage 4: train an agent on its stores, then score it in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import seed_everything

from lightning_synther.agents.agent import Agent
from lightning_synther.errors import ConfigError
from lightning_synther.stages.chain import Artefacts, ModuleConfig
from lightning_synther.stages.checkpoints import load_checkpoint
from lightning_synther.stages.config import DatasetConfig, EvaluationConfig
from lightning_synther.stages.data import EvaluationData
from lightning_synther.stages.record import Stage
from lightning_synther.stages.training import TrainerFactory, ensure, fit, interruptible, stage_seed

#: Settings of the final Trainer that the stage decides itself.
OWN_TRAINER_SETTINGS = {"logger", "callbacks", "default_root_dir", "enable_model_summary", "num_sanity_val_steps"}
#: Settings of the data that say where or how fast, not what.
NOT_INPUTS = {"real", "synthetic", "updates_per_step", "dataset"}


@dataclass(frozen=True)
class AgentStage:
    """Training and evaluation of one agent, as the `model`, `data` and `trainer` sections describe it.

    Attributes:
        name: folder in the run directory.
        artefacts: what the stages before made; None for an agent that needs none (states, online).
        data_overrides: arguments of the data that differ from the config (the real-only comparison).
    """

    factory: TrainerFactory
    name: str
    model: ModuleConfig
    data: ModuleConfig
    trainer: Mapping[str, Any]
    checkpoint_every: int
    evaluation: EvaluationConfig
    artefacts: Artefacts | None = None
    data_overrides: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Train what is not trained, evaluate what is not evaluated; returns the scores."""
        training = self._train()
        if not issubclass(self.model.cls, Agent):
            return {}
        stage = Stage(
            self.factory.run_dir,
            self.name.replace("agent", "evaluation"),
            {"agent": training.fingerprint, "episodes": self.evaluation.episodes, "seed": self.evaluation.seed},
        )

        def build() -> dict[str, Any]:
            agent = load_checkpoint(training.final_checkpoint)
            assert isinstance(agent, Agent)
            return evaluate(self.factory, "test", agent, EvaluationData(self.evaluation), logger=self.name)

        return ensure(stage, build)

    def _train(self) -> Stage:
        max_steps = self.trainer.get("max_steps", -1)
        if max_steps is None or max_steps < 1:
            raise ConfigError(
                f"trainer.max_steps is {max_steps}: give the number of updates of the agent, the data never end"
            )
        data_args = {**self.data.init_args, **self.data_overrides}
        inputs = {
            "model": self.model.inputs(),
            "data": {k: v for k, v in data_args.items() if k not in NOT_INPUTS},
            "max_steps": max_steps,
            "precision": str(self.trainer.get("precision")),
            "seed": self.factory.seed,
            "stages": self.artefacts.fingerprint if self.artefacts else None,
        }
        stage = Stage(self.factory.run_dir, self.name, inputs)

        def build() -> dict[str, Any]:
            seed_everything(stage_seed(self.factory.seed, "agent"), verbose=False)
            agent, data = self._build(data_args)
            fit(stage, self._trainer(stage, data), agent, data)
            return {}

        ensure(stage, build)
        return stage

    def _build(self, data_args: dict[str, Any]) -> tuple[pl.LightningModule, pl.LightningDataModule]:
        if self.artefacts is None:
            return self.model.build(), self.data.cls(**data_args)
        dataset = DatasetConfig(**data_args["dataset"])
        agent = self.model.build(
            env=dataset.env(), encoder_checkpoint=str(self.artefacts.encoder_checkpoint)
        )
        stores = {"real": str(self.artefacts.real), "synthetic": str(self.artefacts.synthetic)}
        return agent, self.data.cls(**{**data_args, **stores, "dataset": dataset})

    def _trainer(self, stage: Stage, data: pl.LightningDataModule) -> pl.Trainer:
        updates_per_step = getattr(data, "updates_per_step", 1)
        kwargs = {k: v for k, v in self.trainer.items() if k not in OWN_TRAINER_SETTINGS and v is not None}
        kwargs.update(self.factory.shared)
        validates = isinstance(kwargs.get("val_check_interval"), int)
        if validates:
            kwargs["check_val_every_n_epoch"] = None
        else:
            kwargs["limit_val_batches"] = 0
        return pl.Trainer(
            default_root_dir=self.factory.run_dir,
            logger=self.factory.logger(stage.name),
            callbacks=[
                *self.factory.callbacks(stage, updates_per_step, self.checkpoint_every),
                *(self.trainer.get("callbacks") or []),
            ],
            num_sanity_val_steps=0,
            enable_model_summary=False,
            **kwargs,
        )


def evaluate(
    factory: TrainerFactory, verb: str, agent: Agent, data: pl.LightningDataModule, logger: str = "evaluation"
) -> dict[str, Any]:
    """Run Lightning's validation or test loop, in which a batch is episode seeds; returns the scores."""
    trainer = factory.plain_trainer(logger)
    with interruptible(trainer):
        getattr(trainer, verb)(agent, datamodule=data, verbose=False)
    return dict(agent.eval_results)



