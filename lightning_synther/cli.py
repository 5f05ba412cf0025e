"""``fit``, ``validate``, ``test`` and ``predict``: a LightningCLI whose ``fit`` runs the stages that are missing.

A config holds what every LightningCLI config does (`model`, `data`, `trainer`: the final agent) and the stages that
the agent depends on (`encoder`, `diffusion`, `synthesis`).
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, instantiate_class

from lightning_synther.agents.agent import Agent
from lightning_synther.allocator import keep_freed_memory
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.stages.agent import AgentStage, evaluate
from lightning_synther.stages.chain import Artefacts, Chain, ModuleConfig
from lightning_synther.stages.checkpoints import import_class, load_checkpoint
from lightning_synther.stages.config import (
    ComparisonConfig,
    DatasetConfig,
    EvaluationConfig,
    LatentsConfig,
    StageTraining,
    SynthesisConfig,
)
from lightning_synther.stages.data import EvaluationData, SynthERData
from lightning_synther.stages.summary import write_summary
from lightning_synther.stages.training import TrainerFactory

log = logging.getLogger(__name__)

#: Constructor arguments that the data decide, so that no config gives them.
SIZES_OF_AGENT = {"observation", "action_dim", "observation_dim", "env", "encoder_checkpoint", "encoder_config"}
#: Trainer settings that hold for every stage.
SHARED_TRAINER = ("accelerator", "devices", "num_nodes", "strategy", "precision", "enable_progress_bar")


class SyntherCLI(LightningCLI):
    """LightningCLI with stages."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """As Lightning's, but `model` and `data` may be absent: a checkpoint says what it holds."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})
        parser.add_lightning_class_args(pl.LightningModule, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the stages and the run directory."""
        parser.add_argument("--run_dir", type=str, default="runs/default", help="everything a run writes")
        parser.add_argument(
            "--checkpoint_every", type=int, default=5_000, help="agent updates between two last.ckpt"
        )
        parser.add_subclass_arguments(
            Agent, "encoder.model", skip=SIZES_OF_AGENT, instantiate=False, required=False
        )
        parser.add_class_arguments(StageTraining, "encoder.training", instantiate=False)
        parser.add_class_arguments(LatentsConfig, "diffusion.latents", instantiate=False)
        parser.add_class_arguments(LatentDiffusion, "diffusion.model", skip={"spec"}, instantiate=False)
        parser.add_class_arguments(StageTraining, "diffusion.training", instantiate=False)
        parser.add_class_arguments(SynthesisConfig, "synthesis", instantiate=False)
        parser.add_class_arguments(ComparisonConfig, "comparison", instantiate=False)
        parser.add_class_arguments(EvaluationConfig, "evaluation", instantiate=False)

    def _parse_ckpt_path(self) -> None:
        """Checkpoints are self-describing (`load_checkpoint`), so nothing of them goes into the config."""

    @property
    def settings(self) -> Namespace:
        """The config of the subcommand."""
        settings = self.config[self.subcommand]
        assert isinstance(settings, Namespace)
        return settings

    def instantiate_classes(self) -> None:
        """Nothing yet: the subcommands build what they need, when its sizes are known."""

    def _run_subcommand(self, subcommand: str) -> None:
        getattr(self, f"run_{subcommand}")()

    # ------------------------------------------------------------------------------------------------ subcommands

    def run_fit(self) -> None:
        """Run the missing stages, then train and evaluate the agent, then write the summary."""
        cfg = self.settings
        if cfg.model is None or cfg.data is None:
            raise ConfigError(
                "fit needs a config with `model` and `data`: start from --config configs/vd4rl_cheetah.yaml"
            )
        self._save_config()
        artefacts = self._chain().run() if self._needs_chain() else None
        results: dict[str, Any] = {"agent": self._fit_agent("agent", artefacts)}
        if artefacts is not None and cfg.comparison.real_only:
            results["real_only"] = self._fit_agent("agent_real_only", artefacts, mixing="real")
        write_summary(Path(cfg.run_dir), self.seed, results)

    def run_validate(self) -> None:
        """Evaluate a checkpoint on the validation episodes."""
        self._evaluate("validate")

    def run_test(self) -> None:
        """Evaluate a checkpoint on the test episodes."""
        self._evaluate("test")

    def run_predict(self) -> None:
        """Sample synthetic transitions from a diffusion checkpoint."""
        from lightning_synther.stages.synthesis import sample_store

        cfg = self.settings
        model = load_checkpoint(self._checkpoint("diffusion"))
        if not isinstance(model, LatentDiffusion):
            raise ConfigError(
                f"predict samples from a diffusion model, but the checkpoint holds {type(model).__name__}: "
                "give --ckpt_path=<run>/diffusion/final.ckpt"
            )
        config = SynthesisConfig(**cfg.synthesis.as_dict())
        output = Path(cfg.get("output") or Path(cfg.run_dir) / "predict")
        store = sample_store(
            self.factory, model, output, config, seed=self.seed, fingerprint=f"predict-{self.seed}"
        )
        log.info("%d synthetic transitions in %s", len(store), output)

    # ---------------------------------------------------------------------------------------------------- parts

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.settings.seed_everything)

    @property
    def factory(self) -> TrainerFactory:
        """Trainers of this run."""
        trainer = self.settings.trainer
        shared = {key: trainer[key] for key in SHARED_TRAINER if trainer.get(key) is not None}
        for key in ("accelerator", "strategy"):
            if isinstance(shared.get(key), Namespace):
                shared[key] = instantiate_class((), shared[key].as_dict())
        return TrainerFactory(Path(self.settings.run_dir), self.seed, shared)

    def _needs_chain(self) -> bool:
        """The chain runs where the agent's data name a dataset and no store."""
        return self.settings.data.class_path.endswith("SynthERData") and not self.settings.data.init_args.real

    def _chain(self) -> Chain:
        cfg = self.settings
        if cfg.encoder.model is None:
            raise ConfigError(
                "data is SynthERData without a `real` store, so stage 1 has to train an encoder, but encoder.model "
                "is not given: name an agent class, as configs/vd4rl_cheetah.yaml does"
            )
        return Chain(
            factory=self.factory,
            dataset=DatasetConfig(**cfg.data.init_args.dataset.as_dict()),
            encoder=_module_config(cfg.encoder.model),
            encoder_training=StageTraining(**cfg.encoder.training.as_dict()),
            latents=LatentsConfig(**cfg.diffusion.latents.as_dict()),
            diffusion=ModuleConfig(LatentDiffusion, cfg.diffusion.model.as_dict()),
            diffusion_training=StageTraining(**cfg.diffusion.training.as_dict()),
            synthesis=SynthesisConfig(**cfg.synthesis.as_dict()),
        )

    def _fit_agent(self, name: str, artefacts: Artefacts | None, **data: Any) -> dict[str, Any]:
        cfg = self.settings
        return AgentStage(
            factory=self.factory,
            name=name,
            model=_module_config(cfg.model),
            data=_module_config(cfg.data),
            data_overrides=data,
            trainer=cfg.trainer.as_dict(),
            checkpoint_every=cfg.checkpoint_every,
            evaluation=EvaluationConfig(**cfg.evaluation.as_dict()),
            artefacts=artefacts,
        ).run()

    def _evaluate(self, verb: str) -> None:
        cfg = self.settings
        config = EvaluationConfig(**cfg.evaluation.as_dict())
        agent = load_checkpoint(self._checkpoint("agent"))
        if not isinstance(agent, Agent):
            raise ConfigError(
                f"{verb} runs a policy, but the checkpoint holds {type(agent).__name__}: give an agent's"
            )
        results = evaluate(self.factory, verb, agent, EvaluationData(config))
        log.info("%s", results)

    def _checkpoint(self, stage: str) -> Path:
        given = self.settings.get("ckpt_path")
        return Path(given) if given else Path(self.settings.run_dir) / stage / "final.ckpt"

    def _save_config(self) -> None:
        run_dir = Path(self.settings.run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        self._parser("fit").save(
            self.settings, run_dir / "config.yaml", skip_none=False, overwrite=True, multifile=False
        )


def _module_config(config: Namespace) -> ModuleConfig:
    return ModuleConfig(import_class(config.class_path), config.get("init_args", Namespace()).as_dict())


def quieten_lightning() -> None:
    """Leave out what Lightning says once per Trainer: a chain has many, and none of it is news."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        r"Checkpoint directory .* exists and is not empty",
        r"(?s)Using ModelCheckpoint with manual optimization",  # the state after the update is the one wanted
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        r"Total length of .* across ranks is zero",
        r"Found \d+ module\(s\) in eval mode",
        r"The '\w+_dataloader' does not have many workers",
        r"Starting from v1.9.0, `tensorboardX` has been removed",
    ):
        warnings.filterwarnings("ignore", message=message)


def main(args: list[str] | None = None) -> None:
    """Parse ``args`` (default: the command line) and run the subcommand."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lightning_synther").setLevel(logging.INFO)
    quieten_lightning()
    keep_freed_memory()
    SyntherCLI(
        args=args,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_callback=None,
        parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
    )
