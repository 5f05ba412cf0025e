"""``fit``, ``validate``, ``test``, ``predict``: a LightningCLI whose ``fit`` runs missing stages.

A config holds what every LightningCLI config does (`model`, `data`, `trainer`: the final agent) and the
stages that the agent depends on (`encoder`, `diffusion`, `synthesis`).
"""

from __future__ import annotations

import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightning_synther.agents.agent import Agent
from lightning_synther.allocator import keep_freed_memory
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.networks.timm_encoder import SIZES, TimmEncoder
from lightning_synther.stages.config.nested_null import nested_null
from lightning_synther.stages.config.parse_errors import explain, parser_keys
from lightning_synther.stages.config.sections import (
    ComparisonConfig,
    DecoderConfig,
    EvaluationConfig,
    LatentsConfig,
    MonitorConfig,
    ResynthesisConfig,
    StageTraining,
)
from lightning_synther.stages.config.synthesis import SynthesisConfig
from lightning_synther.stages.record.ranks import all_ranks, is_rank_zero
from lightning_synther.stages.run import DEFAULT_RUN_DIR, Run
from lightning_synther.stages.trainer.precision import use_fast_float32
from lightning_synther.stages.trainer.quiet import quieten_lightning
from lightning_synther.synthesis.conditions import COMPUTED

#: Constructor arguments that the data decide, so that no config gives them.
SIZES_OF_AGENT = {
    "observation",
    "action_dim",
    "observation_dim",
    "env",
    "encoder_checkpoint",
    "encoder_config",
    *SIZES,
}
SIZES_OF_DIFFUSION = {"spec", "conditions"}


class SyntherCLI(LightningCLI):
    """LightningCLI with stages.

    Attributes:
        arguments: the command line.
        restartable: whether repeating this process's command line gives the same arguments.
    """

    def __init__(self, args: list[str] | None = None) -> None:
        self.restartable = args is None
        self.arguments = list(sys.argv[1:] if args is None else args)
        super().__init__(
            args=args,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=None,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; a mistake becomes one sentence that names the key."""
        with warnings.catch_warnings(), nested_null():
            # Of arguments beside those of the process, which a caller means.
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
            pl.LightningModule, "model", skip=SIZES_OF_DIFFUSION, instantiate=False, required=False
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
        parser.add_argument(
            "--keep_every",
            type=int,
            default=0,
            help="agent updates between two small checkpoints that are kept, updates_<n>.ckpt (0: none)",
        )
        parser.add_subclass_arguments(
            (Agent, TimmEncoder), "encoder.model", skip=SIZES_OF_AGENT, instantiate=False, required=False
        )
        parser.add_class_arguments(StageTraining, "encoder.training", instantiate=False)
        parser.add_argument(
            "--encoder.checkpoint",
            type=str | None,
            default=None,
            help="a finished encoder in place of stage 1: encoder/final.ckpt of another run of this environment "
            "(encoder.model and encoder.training are then not used)",
        )
        parser.add_argument(
            "--encoder.fraction",
            type=Literal["same", "all"],
            default="same",
            help="with data.fraction or data.num_real_episodes, what the encoder is trained on: the same episodes as "
            "everything after it, or all; only `same` says what so little data are worth",
        )
        parser.add_class_arguments(LatentsConfig, "diffusion.latents", instantiate=False)
        parser.add_class_arguments(
            LatentDiffusion, "diffusion.model", skip=SIZES_OF_DIFFUSION, instantiate=False
        )
        parser.add_argument(
            "--diffusion.conditions",
            type=list[str],
            default=[],
            help="what the diffusion model is conditioned on: relevance functions "
            f"({', '.join(COMPUTED)}), or arrays of your own beside the latents",
        )
        parser.add_class_arguments(StageTraining, "diffusion.training", instantiate=False)
        parser.add_class_arguments(MonitorConfig, "diffusion.monitor", instantiate=False)
        parser.add_class_arguments(DecoderConfig, "decoder", instantiate=False)
        parser.add_class_arguments(SynthesisConfig, "synthesis", instantiate=False)
        parser.add_class_arguments(ResynthesisConfig, "resynthesis", instantiate=False)
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
        run = Run(self.settings)
        settings = {**run.factory.settings(), "precision": None}  # the stages check theirs
        trainer = pl.Trainer(logger=False, enable_checkpointing=False, **settings)
        with all_ranks(trainer, restartable=self.restartable):
            if subcommand == "fit":
                run.check()
                self._save_config(run.run_dir)
            getattr(run, subcommand)()

    def _save_config(self, run_dir: Path) -> None:
        if is_rank_zero():
            run_dir.mkdir(parents=True, exist_ok=True)
            command = f"python -m lightning_synther {shlex.join(self.arguments)}"
            (run_dir / "command.txt").write_text(command + "\n")
            path = run_dir / "config.yaml"
            self._parser("fit").save(self.settings, path, skip_none=False, overwrite=True, multifile=False)


def main(args: list[str] | None = None) -> None:
    """Parse ``args`` (default: the command line) and run the subcommand."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lightning_synther").setLevel(logging.INFO if is_rank_zero() else logging.ERROR)
    quieten_lightning()
    keep_freed_memory()
    use_fast_float32()
    SyntherCLI(args)
