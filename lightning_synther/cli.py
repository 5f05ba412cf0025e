"""``fit``, ``validate``, ``test``, ``predict``: a LightningCLI whose ``fit`` runs missing stages.

A config holds what every LightningCLI config does (`model`, `data`, `trainer`: the final agent) and the
stages that the agent depends on (`encoder`, `diffusion`, `synthesis`).
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightning_synther.agents.agent import Agent
from lightning_synther.allocator import keep_freed_memory
from lightning_synther.data.synther_npz import export_npz
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.stages.agent import AgentStage, check_env, evaluate
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
from lightning_synther.stages.parse_errors import explain, parser_keys
from lightning_synther.stages.ranks import all_ranks, is_rank_zero
from lightning_synther.stages.record import write_json
from lightning_synther.stages.summary import describe_scores, write_summary
from lightning_synther.stages.synthesis import sample_store
from lightning_synther.stages.training import TrainerFactory

log = logging.getLogger(__name__)

DEFAULT_RUN_DIR = "runs/default"
#: Constructor arguments that the data decide, so that no config gives them.
SIZES_OF_AGENT = {
    "observation",
    "action_dim",
    "observation_dim",
    "env",
    "encoder_checkpoint",
    "encoder_config",
}
#: Trainer settings that hold for every stage.
SHARED_TRAINER = ("accelerator", "devices", "num_nodes", "strategy", "precision")


class SyntherCLI(LightningCLI):
    """LightningCLI with stages.

    Attributes:
        restartable: whether repeating this process's command line gives the same arguments.
    """

    def __init__(self, args: list[str] | None = None) -> None:
        self.restartable = args is None
        super().__init__(
            args=args,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=None,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; a mistake becomes one sentence that names the key."""
        with warnings.catch_warnings():  # of arguments beside those of the process, which a caller means
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            try:
                super().parse_arguments(parser, args)
            except ArgumentError as error:
                raise ConfigError(
                    explain(str(error), parser_keys(self._subcommand_parsers["fit"]))
                ) from error

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """As Lightning's, but `model` and `data` may be absent: a checkpoint says what it holds."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})
        parser.add_subclass_arguments(
            pl.LightningModule, "model", skip={"spec"}, instantiate=False, required=False
        )
        parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True, required=False)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommands, and the arguments of Lightning's methods that they do without."""
        return {
            "fit": {
                "model",
                "train_dataloaders",
                "val_dataloaders",
                "datamodule",
                "ckpt_path",
                "weights_only",
            },
            "validate": {"model", "dataloaders", "datamodule", "verbose", "weights_only"},
            "test": {"model", "dataloaders", "datamodule", "verbose", "weights_only"},
            "predict": {"model", "dataloaders", "datamodule", "return_predictions", "weights_only"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the stages and the run directory."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help=f"everything a run writes (default: {DEFAULT_RUN_DIR})",
        )
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

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument(
                "--output", type=str | None, default=None, help="store to write (default: <run_dir>/predict)"
            )
            parser.add_argument(
                "--npz",
                type=str | None,
                default=None,
                help="file to export the store to, in SynthER's layout",
            )
        return parser

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
        settings = {**self.factory.settings(), "precision": None}  # what runs here is checked by its stage
        trainer = pl.Trainer(logger=False, enable_checkpointing=False, **settings)
        with all_ranks(trainer, restartable=self.restartable):
            getattr(self, f"run_{subcommand}")()

    # ------------------------------------------------------------------------------ subcommands

    def run_fit(self) -> None:
        """Run the missing stages, then train and evaluate the agent, then write the summary."""
        cfg = self.settings
        if cfg.model is None or cfg.data is None:
            raise ConfigError(
                "fit needs a config with `model` and `data`: start from --config configs/vd4rl_cheetah.yaml"
            )
        chain = self.check()
        if is_rank_zero():
            self._save_config()
        artefacts = chain.run() if chain is not None else None
        results = {"agent": self._agent_stage(artefacts).run()}
        if artefacts is not None and cfg.comparison.real_only:
            results["real_only"] = self._agent_stage(artefacts, "agent_real_only", mixing="real").run()
        write_summary(self.run_dir, self.seed, results)

    def check(self) -> Chain | None:
        """The stages before the agent, if it needs any.

        Raises `ConfigError` for settings that a stage would refuse, possibly hours from now.
        """
        chain = self._chain() if self._starts_from_pixels() else None
        self._agent_stage(None).check(None if chain is None else chain.check())
        return chain

    def run_validate(self) -> None:
        """Evaluate a checkpoint on the validation episodes."""
        self._evaluate("validate")

    def run_test(self) -> None:
        """Evaluate a checkpoint on the test episodes."""
        self._evaluate("test")

    def run_predict(self) -> None:
        """Sample synthetic transitions from a diffusion checkpoint."""
        cfg = self.settings
        model = load_checkpoint(self._checkpoint("diffusion"))
        if not isinstance(model, LatentDiffusion):
            raise ConfigError(
                f"predict samples from a diffusion model, but {self._checkpoint('diffusion')} holds "
                f"{type(model).__name__}: give --ckpt_path=<run>/diffusion/final.ckpt"
            )
        config = SynthesisConfig(**cfg.synthesis.as_dict())
        output = Path(cfg.output or self.run_dir / "predict")
        store = sample_store(self.factory, model, output, config, seed=self.seed)
        log.info("%d synthetic transitions of %d numbers in %s", len(store), store.spec.dim, output)
        if cfg.npz is not None and is_rank_zero():
            log.info("exported to %s", export_npz(store, cfg.npz))

    # ------------------------------------------------------------------------------------ parts

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.settings.seed_everything)

    @property
    def run_dir(self) -> Path:
        """The run directory; that of a checkpoint which is given alone."""
        checkpoint = self.settings.get("ckpt_path")
        if self.settings.run_dir is None and checkpoint is not None:
            folder = Path(checkpoint).absolute().parent
            return folder.parent if (folder / "stage.json").exists() else folder
        return Path(self.settings.run_dir or DEFAULT_RUN_DIR)

    @property
    def factory(self) -> TrainerFactory:
        """Trainers of this run."""
        trainer = self.settings.trainer.as_dict()
        shared = {key: trainer[key] for key in SHARED_TRAINER if trainer.get(key) is not None}
        return TrainerFactory(self.run_dir, self.seed, shared, trainer["enable_progress_bar"] is not False)

    def _starts_from_pixels(self) -> bool:
        """The stages run where the agent's data name a dataset and no store."""
        data = self.settings.data
        return issubclass(import_class(data.class_path), SynthERData) and data.init_args.real is None

    def _chain(self) -> Chain:
        cfg = self.settings
        if cfg.encoder.model is None:
            raise ConfigError(
                "data is SynthERData without a `real` store, so stage 1 has to train an encoder, but "
                "encoder.model is not given: name an agent class, as configs/vd4rl_cheetah.yaml does"
            )
        if cfg.data.init_args.dataset is None:
            raise ConfigError(
                "data is SynthERData with neither a `dataset` nor a `real` store: give one of them"
            )
        if cfg.model.init_args.get("encoder_checkpoint") is not None:
            raise ConfigError(
                "model.encoder_checkpoint is given, but the stages train an encoder themselves: remove it, "
                "or give the store that it made as data.real"
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

    def _agent_stage(self, artefacts: Artefacts | None, name: str | None = None, **data: Any) -> AgentStage:
        cfg = self.settings
        model = _module_config(cfg.model)
        return AgentStage(
            factory=self.factory,
            name=name or ("diffusion" if issubclass(model.cls, LatentDiffusion) else "agent"),
            model=model,
            data=_module_config(cfg.data),
            data_overrides=data,
            trainer=cfg.trainer.as_dict(),
            checkpoint_every=cfg.checkpoint_every,
            evaluation=EvaluationConfig(**cfg.evaluation.as_dict()),
            artefacts=artefacts,
        )

    def _evaluate(self, verb: str) -> None:
        cfg = self.settings
        path = self._checkpoint("agent")
        agent = load_checkpoint(path)
        if not isinstance(agent, Agent):
            raise ConfigError(
                f"{verb} runs a policy, but {path} holds {type(agent).__name__}: "
                "give an agent's, as in --ckpt_path=<run>/agent/final.ckpt"
            )
        dataset = cfg.data.init_args.get("dataset") if cfg.data is not None else None
        if dataset is not None:
            check_env(DatasetConfig(**dataset.as_dict()).env(), agent.env, path)
        results = evaluate(
            self.factory, verb, agent, EvaluationData(EvaluationConfig(**cfg.evaluation.as_dict()))
        )
        if is_rank_zero():
            write_json(self.run_dir / f"{verb}.json", {"checkpoint": str(path), **results})
        log.info("%s: %s", path, describe_scores(results))

    def _checkpoint(self, stage: str) -> Path:
        given = self.settings.get("ckpt_path")
        return Path(given) if given else self.run_dir / stage / "final.ckpt"

    def _save_config(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._parser("fit").save(
            self.settings, self.run_dir / "config.yaml", skip_none=False, overwrite=True, multifile=False
        )


def _module_config(config: Namespace) -> ModuleConfig:
    return ModuleConfig(import_class(config.class_path), config.get("init_args", Namespace()).as_dict())


def quieten_lightning() -> None:
    """Leave out what Lightning says once per Trainer: a chain has many, and none of it is news."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        r"Checkpoint directory .* exists and is not empty",
        r"The dirpath has changed from",  # a run directory may be moved
        r"(?s)Using ModelCheckpoint with manual optimization",  # the state after the update is the one wanted
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        r"Total length of .* across ranks is zero",
        r"Found \d+ module\(s\) in eval mode",
        r"The '\w+_dataloader' does not have many workers",
        r"Using `DistributedSampler` with the dataloaders",  # an episode that two ranks ran counts once
        r"It is recommended to use `self.log\(.*sync_dist=True",  # it has been averaged over ranks
        r"Starting from v1.9.0, `tensorboardX` has been removed",
    ):
        warnings.filterwarnings("ignore", message=message)


def main(args: list[str] | None = None) -> None:
    """Parse ``args`` (default: the command line) and run the subcommand."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lightning_synther").setLevel(logging.INFO if is_rank_zero() else logging.ERROR)
    quieten_lightning()
    keep_freed_memory()
    SyntherCLI(args)
