"""Mistakes on the command line and in configs: one sentence that names the key, status 1, no traceback."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_synther.__main__ import main

BASE = Path(__file__).parents[1] / "configs" / "vd4rl_cheetah.yaml"


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """The sentence with which ``fit`` refuses some arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIGHTNING_SYNTHER_TRACEBACK", raising=False)

    def call(*args: str, base: bool = True) -> str:
        assert main(["fit", *([f"--config={BASE}"] if base else []), *args]) == 1
        said: str = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert not list(tmp_path.glob("runs/*"))
        return said.removeprefix("error: ").rstrip("\n")

    return call


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        (
            "--diffusion.model.widht=3",
            "--diffusion.model.widht is not an option: did you mean --diffusion.model.width?",
        ),
        ("--trainer.max_step=3", "--trainer.max_step is not an option: did you mean --trainer.max_steps?"),
        (
            "--model.hiden_dim=3",
            "--model.hiden_dim is not an option of DrQV2: did you mean --model.hidden_dim?",
        ),
        (
            "--data.dataset.polcy=expert",
            "--data.dataset.polcy is not an option of DatasetConfig: did you mean --data.dataset.policy?",
        ),
        ("--ckpt_path=x.ckpt", "--ckpt_path is not an option"),
        ("--model.hidden_dim=x", "--model.hidden_dim: expected int, got x"),
        ("--data.dataset.image_size=3", "--data.dataset.image_size: expected Literal[84, 64], got 3"),
        ("--trainer.max_steps=many", "--trainer.max_steps: expected int, got many"),
        ("--config=/missing.yaml", "--config: File does not exist: '/missing.yaml'"),
        (
            "--encoder.model=lightning_synther.agents.DrQV3",
            "--encoder.model: there is no class lightning_synther.agents.DrQV3, give an import path as in "
            "lightning_synther.agents.DrQV2",
        ),
        (
            "--model=Nothing",
            "--model: there is no class Nothing, give an import path as in lightning_synther.agents.DrQV2",
        ),
    ],
)
def test_a_mistyped_flag(refused, flag, sentence):
    assert refused(flag) == sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"diffusion": {"model": {"widht": 3}}},
            "--diffusion.model.widht is not an option: did you mean --diffusion.model.width?",
        ),
        (
            {"model": {"init_args": {"hiden_dim": 3}}},
            "--model.hiden_dim is not an option of DrQV2: did you mean --model.hidden_dim?",
        ),
        (
            {"data": {"init_args": {"dataset": {"taks": "x"}}}},
            "--data.dataset.taks is not an option of DatasetConfig: did you mean --data.dataset.task?",
        ),
        ({"synthesis": {"num_transitions": "x"}}, "--synthesis.num_transitions: expected int, got x"),
        (
            {"model": {"class_path": "lightning_synther.agents.DrQV3"}},
            "--model: there is no class lightning_synther.agents.DrQV3, give an import path as in "
            "lightning_synther.agents.DrQV2",
        ),
    ],
)
def test_a_mistyped_key(refused, tmp_path, content, sentence):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(content))
    assert refused(f"--config={overlay}") == sentence


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--trainer.max_steps=-1"], "trainer.max_steps is -1: give the number of updates"),
        (["--trainer.max_steps=105"], "trainer.max_steps 105 is not a multiple of updates_per_step 10"),
        (
            ["--diffusion.training.updates_per_step=7"],
            "diffusion.training.max_steps 100000 is not a multiple of updates_per_step 7",
        ),
        (["--trainer.precision=16-mixed"], "trainer.precision is '16-mixed': give 32-true"),
        (["--encoder.training.precision=16-mixed"], "encoder.training.precision is '16-mixed': give 32-true"),
        (["--encoder.model=null"], "encoder.model is not given: name an agent class"),
        (["--model.encoder_checkpoint=x.ckpt"], "model.encoder_checkpoint is given, but the stages train"),
        (["--data.dataset=null"], "SynthERData with neither a `dataset` nor a `real` store"),
        (["--data.dataset.holdout_fraction=1"], "dataset.holdout_fraction is 1.0: give a share in [0, 1)"),
        (["--data.dataset.num_episodes=many"], "--data.dataset.num_episodes: expected int or null, got many"),
        (["--data.reward_scale=big"], "--data.reward_scale: expected float or 'return_range', got big"),
        (["--trainer.default_root_dir=x"], "trainer.default_root_dir is given, but a run decides it itself"),
        (["--trainer.devices=2", "--trainer.accelerator=cpu"], "trainer.devices is 2, which repeats the"),
        (
            ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp_spawn"],
            "trainer.strategy forks or spawns its processes inside one stage",
        ),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused_at_once(refused, flags, sentence):
    assert sentence in refused(*flags)


def test_fit_without_a_config(refused):
    assert "fit needs a config with `model` and `data`" in refused(base=False)


def test_help_and_typos_of_the_real_process():
    def call(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lightning_synther", "fit", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    shown = call("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--synthesis.num_transitions" in shown.stdout
    wrong = call("--synthesis.num_transition=3")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.count("\n") == 1


@pytest.fixture(autouse=True)
def _restore_logging():
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_null_reaches_a_key_of_a_class_within_a_class(capsys):
    keys = ["data.dataset.num_episodes", "data.dataset.time_limit", "data.real"]
    quick = f"--config={BASE.parent / 'scale' / 'quick.yaml'}"
    assert main(["fit", f"--config={BASE}", quick, *(f"--{key}=null" for key in keys), "--print_config"]) == 0
    parsed = yaml.safe_load(capsys.readouterr().out)
    assert parsed["data"]["init_args"]["dataset"]["num_episodes"] is None
    assert parsed["data"]["init_args"]["dataset"]["time_limit"] is None
    assert parsed["data"]["init_args"]["dataset"]["task"] == "cheetah_run"
    assert parsed["data"]["init_args"]["real"] is None
