"""Online SynthER by the command line, at tiny size: what is made, logged and resumed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import yaml

from lightning_synther.__main__ import main
from lightning_synther.agents.scoring import ScoredAgent
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from tests.stages.synthetic.online_tiny import arguments, measured, scalars
from tests.stages.tiny import CONFIGS


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(ScoredAgent, "eval_workers", 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("online") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScoredAgent, "eval_workers", 0)
        assert main(arguments(run_dir)) == 0
    return run_dir


def test_every_retraining_is_measured_over_agent_steps(whole):
    summary = json.loads((whole / "summary.json").read_text())["online"]
    steps = [figures["agent_steps"] for figures in summary["resyntheses"]]
    assert steps == [41, 60, 80, 100]  # the random steps end at 40, the next one is the first to be due
    assert [figures["real_transitions"] for figures in summary["resyntheses"]] == [41, 60, 70, 70]
    assert summary["agent_steps"] == 40 + 1300 / 20
    for tag in ("resynthesis/loss", "resynthesis/fidelity/ks_mean", "time/resynthesis", "time/environment"):
        assert list(scalars(whole, tag)) == steps
    assert set(summary["seconds"]) == {"environment", "resynthesis", "batches", "updates"}
    assert all(value > 0 for value in summary["seconds"].values())
    losses = scalars(whole, "train/loss", "agent/resynthesis/00000100")
    assert list(losses) == [10, 20, 30, 40]
    assert losses[40] == pytest.approx(summary["resyntheses"][-1]["loss"])


def test_what_no_checkpoint_needs_is_removed(whole):
    kept = sorted(path.name for path in (whole / "agent" / "resynthesis").iterdir())
    assert kept == ["00000100"]
    assert sorted(path.name for path in (whole / "agent" / "resynthesis" / "00000100").iterdir()) == [
        "final.ckpt",
        "losses.json",
        "stage.json",
        "store",
    ]


def test_checkpoints_stay_small(whole):
    rows = whole / "agent" / "replay" / "rank_0.rows"
    assert rows.stat().st_size == 105 * (5 + 1 + 1 + 5 + 1) * 4
    state = torch.load(whole / "agent" / "last.ckpt", weights_only=True)["OnlineSynthERData"]
    assert state["replay"]["rows"] is None
    assert state["resynthesised_at"] == 100
    assert load_checkpoint(whole / "agent" / "final.ckpt").num_updates == 1300


def test_killed_anywhere_and_started_again_it_ends_the_same(whole, tmp_path):
    command = [
        sys.executable,
        "-m",
        "tests.stages.synthetic.online_interrupted",
        "SIGKILL",
        str(tmp_path / "run"),
    ]
    runs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    *killed, (_, status, said) = runs
    assert [(moment, code) for moment, code, _ in killed] == [(moment, -9) for moment, _, _ in killed]
    assert status == 0, said
    interrupted, uninterrupted = measured(tmp_path / "run"), measured(whole)
    assert interrupted["return"] == uninterrupted["return"]
    # A regression's last digit depends on the threads of the process that solves it.
    pairs = zip(interrupted["resyntheses"], uninterrupted["resyntheses"], strict=True)
    for ours, theirs in pairs:
        assert ours == pytest.approx(theirs, rel=1e-9)
    final, other = (load_checkpoint(path / "agent" / "final.ckpt") for path in (whole, tmp_path / "run"))
    assert all(torch.equal(a, b) for a, b in zip(final.parameters(), other.parameters(), strict=True))
    for tag in ("train/critic_loss", "train/episode_return", "resynthesis/loss"):
        assert scalars(tmp_path / "run", tag) == scalars(whole, tag)
    went_on = [
        moment for moment, _, said in runs if "resynthesis" in said and "was interrupted, goes on" in said
    ]
    assert went_on, "none of the kills came during a retraining"


def test_prioritized_generative_replay_is_an_overlay(tmp_path):
    overlay = f"--config={CONFIGS / 'generator' / 'pgr.yaml'}"
    flags = ["--trainer.max_steps=40", "--diffusion.training.max_steps=20"]
    first, *others = arguments(tmp_path)
    assert main([first, others[0], overlay, *others[1:], *flags]) == 0
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert settings["synthesis"]["prompt"] == "top"
    model = load_checkpoint(tmp_path / "agent" / "resynthesis" / "00000041" / "final.ckpt")
    assert model.conditioner.sizes == {"curiosity": 1}


@pytest.mark.parametrize(
    "flags", [["--resynthesis.start=warm"], ["--diffusion.conditions=[td_error]", "--synthesis.prompt=top"]]
)
def test_options_of_the_retraining(tmp_path, flags):
    assert main(arguments(tmp_path, "--trainer.max_steps=400", *flags)) == 0
    figures = measured(tmp_path)["resyntheses"]
    assert len(figures) == 2
    model = load_checkpoint(tmp_path / "agent" / "resynthesis" / "00000060" / "final.ckpt")
    assert model.ema.num_calls == (80 if "warm" in flags[0] else 40)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--data.resynthesise_every=0"], "data.resynthesise_every is 0"),
        (["--data.ratio=1.5"], "data.ratio is 1.5"),
        (
            ["--diffusion.conditions=[return_to_go]"],
            "'return_to_go', which cannot be computed for the replay",
        ),
        (["--diffusion.conditions=[curiosity]"], "conditioned on curiosity, but synthesis.prompt is not set"),
        (["--diffusion.model.skip_fields=[rewards]"], "skip_fields names 'rewards'"),
        (["--diffusion.training.max_steps=45"], "diffusion.training.max_steps 45 is not a multiple"),
        (["--resynthesis.start=cold"], "resynthesis.start"),
    ],
)
def test_settings_that_cannot_be_honoured(tmp_path, capsys, flags, sentence):
    assert main(arguments(tmp_path, *flags)) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


HOPPER = ("--data.env.task=gymnasium:Hopper-v5",)


@pytest.mark.parametrize("algorithm", ["SAC", "REDQ"])
def test_gymnasium_with_terminals_modelled(tmp_path, algorithm):
    pytest.importorskip("gymnasium")
    flags = [f"--model={algorithm}", "--data.terminals=true", "--diffusion.model.skip_fields=[terminal]"]
    flags += ["--data.start_steps=60", "--trainer.max_steps=40"]
    assert main(arguments(tmp_path, *flags, env=HOPPER)) == 0
    [figures] = measured(tmp_path)["resyntheses"]
    assert figures["agent_steps"] == 61
    model = load_checkpoint(tmp_path / "agent" / "resynthesis" / "00000061" / "final.ckpt")
    assert model.spec.terminal


def test_ends_that_are_not_modelled_are_an_error(tmp_path, capsys):
    pytest.importorskip("gymnasium")
    flags = ["--data.start_steps=100", "--trainer.max_steps=40"]
    assert main(arguments(tmp_path, *flags, env=HOPPER)) == 1
    assert "ended their episode for good, but data.terminals is false" in capsys.readouterr().err
