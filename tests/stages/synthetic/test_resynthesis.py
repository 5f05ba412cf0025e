"""One retraining of an online run: what identifies it, and what it measures after an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.online.synthetic import Experience
from lightning_synther.stages.config.module import ModuleConfig
from lightning_synther.stages.config.sections import ResynthesisConfig, StageTraining
from lightning_synther.stages.config.synthesis import SynthesisConfig
from lightning_synther.stages.synthetic.resynthesis import Resynthesis
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.99)
TINY = {"width": 16, "num_layers": 1, "num_sampling_steps": 2, "log_every_n_updates": 10}


def resynthesis(run_dir: Path, precision: str | None = None, of_all: str | None = None) -> Resynthesis:
    return Resynthesis(
        TrainerFactory(run_dir, 0, {"accelerator": "cpu", "precision": of_all}, progress=False),
        "agent/resynthesis",
        ModuleConfig(LatentDiffusion, TINY),
        StageTraining(max_steps=20, batch_size=16, updates_per_step=10, checkpoint_every=10),
        SynthesisConfig(num_transitions=20, chunk_size=20, precision=precision),
        ResynthesisConfig(fidelity_transitions=0),
    )


def test_killed_before_its_loss_is_written_it_still_has_it(tmp_path, monkeypatch):
    rows = torch.rand(60, SPEC.dim, generator=torch.Generator().manual_seed(0))
    real = Experience(rows, SPEC, 41, None, None)
    whole = resynthesis(tmp_path / "whole")(real).figures
    monkeypatch.setattr("lightning_synther.stages.synthetic.resynthesis.write_json", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        resynthesis(tmp_path / "killed")(real)
    monkeypatch.undo()
    folder = tmp_path / "killed" / "agent" / "resynthesis" / "00000041"
    assert (folder / "last.ckpt").exists()
    assert not (folder / "losses.json").exists()
    assert resynthesis(tmp_path / "killed")(real).figures["loss"] == whole["loss"]


def test_the_precision_of_sampling_identifies_it(tmp_path):
    low, full = (resynthesis(tmp_path, precision).inputs() for precision in ("bf16-mixed", "32-true"))
    assert {name for name in low if low[name] != full[name]} == {"precision"}


def test_so_does_the_precision_of_all_stages_where_it_has_none_of_its_own(tmp_path):
    low, full = (resynthesis(tmp_path, of_all=precision).inputs() for precision in ("bf16-mixed", "32-true"))
    assert {name for name in low if low[name] != full[name]} == {"precision", "training"}
    assert full == resynthesis(tmp_path).inputs()
    sampling = resynthesis(tmp_path, "32-true", of_all="bf16-mixed").inputs()
    assert (sampling["precision"], sampling["training"]["precision"]) == ("32-true", "bf16-mixed")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
