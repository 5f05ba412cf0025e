"""Every config parses against the command line as it is, so that none can rot."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_synther.cli import SyntherCLI
from lightning_synther.stages.run import Run

CONFIGS = Path(__file__).parents[1] / "configs"
BASE = CONFIGS / "vd4rl_cheetah.yaml"
COMBINATIONS = [[path] for path in sorted(CONFIGS.glob("*.yaml"))] + [
    [BASE, path] for folder in ("scale", "encoder") for path in sorted(CONFIGS.glob(f"{folder}/*.yaml"))
]


class Parsed(SyntherCLI):
    """The command line without its command."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def parse(*args: str | Path) -> Parsed:
    return Parsed([str(arg) for arg in args])


@pytest.mark.parametrize("paths", COMBINATIONS, ids=lambda paths: "+".join(path.stem for path in paths))
def test_a_config_parses_and_passes_its_checks(paths):
    cli = parse("fit", *(f"--config={path}" for path in paths))
    Run(cli.settings).check()
    assert cli.settings.run_dir == f"runs/{paths[-1].stem}"


def test_there_are_configs():
    assert BASE in [paths[0] for paths in COMBINATIONS]
    assert [BASE, CONFIGS / "scale" / "quick.yaml"] in COMBINATIONS


def test_overlays_and_flags_lie_over_the_config():
    quick = CONFIGS / "scale" / "quick.yaml"
    plain = parse("fit", f"--config={BASE}").settings
    laid = parse("fit", f"--config={BASE}", f"--config={quick}", "--data.dataset.policy=expert").settings
    assert plain.data.init_args.dataset.policy == "medium"
    assert laid.data.init_args.dataset.policy == "expert"
    assert laid.trainer.max_steps < plain.trainer.max_steps
    assert laid.data.init_args.dataset.gamma == plain.data.init_args.dataset.gamma


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_the_other_subcommands_take_the_same_configs(subcommand):
    settings = parse(subcommand, f"--config={BASE}", "--ckpt_path=some.ckpt").settings
    assert settings.ckpt_path == "some.ckpt"
    assert settings.synthesis.num_transitions == 5_000_000


def test_what_is_published_is_in_the_full_config():
    settings = parse("fit", f"--config={BASE}").settings
    denoiser = settings.diffusion.model
    assert (denoiser.width, denoiser.num_layers, denoiser.num_sampling_steps) == (2048, 6, 128)
    assert settings.diffusion.training.max_steps == 100_000
    agent = settings.model.init_args
    assert (agent.hidden_dim, agent.bc_weight, agent.tau) == (1024, 2.5, 0.01)
