"""Diffusion and synthesis on given rows: what identifies the stages, and how the training is watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_synther.data.rows import write_rows
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.stages.config.module import ModuleConfig
from lightning_synther.stages.config.sections import DecoderConfig, MonitorConfig, StageTraining
from lightning_synther.stages.config.synthesis import SynthesisConfig
from lightning_synther.stages.real import decoder
from lightning_synther.stages.real.source import RealTransitions
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.synthetic.generation import Generation
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.synthesis.monitor import FidelityMonitor
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)
TINY = {"width": 8, "num_layers": 1, "sampler": "dpmpp_2m_sde", "num_sampling_steps": 2, "sigma_min": 0.1}
SHORT = StageTraining(max_steps=4, batch_size=8, updates_per_step=2)
FEW = SynthesisConfig(num_transitions=16, chunk_size=8)
UNWATCHED = MonitorConfig(0)


@pytest.fixture
def real(tmp_path: Path) -> RealTransitions:
    """Random rows, none of them held out."""
    stage = Stage(tmp_path, "states", {})
    stage.begin()
    rows = torch.randn(64, SPEC.dim, generator=torch.Generator().manual_seed(0))
    write_rows(stage.directory / "train", rows, SPEC)
    stage.finish({})
    return RealTransitions(stage)


def generation(
    run_dir: Path,
    precision: str | int | None = None,
    training: StageTraining = SHORT,
    synthesis: SynthesisConfig = FEW,
    monitor: MonitorConfig = UNWATCHED,
) -> Generation:
    shared = {"accelerator": "cpu", "devices": 1, **({} if precision is None else {"precision": precision})}
    factory = TrainerFactory(run_dir, 0, shared, progress=False)
    return Generation(factory, ModuleConfig(LatentDiffusion, TINY), training, monitor, synthesis)


def precisions(generation: Generation, real: RealTransitions) -> tuple[Any, Any]:
    """What the inputs of both stages hold."""
    diffusion = generation.train(real)
    return (
        diffusion.inputs["training.precision"],
        generation.synthesise(diffusion, real).inputs["precision"],
    )


def test_the_precision_of_all_stages_identifies_those_that_have_none_of_their_own(real, tmp_path):
    assert precisions(generation(tmp_path, "bf16-mixed"), real) == ("bf16-mixed", "bf16-mixed")
    changed = generation(tmp_path, "32-true")
    stage = Stage(tmp_path, "diffusion", changed.train(real).inputs)
    assert stage.inputs["training.precision"] is None
    own = StageTraining(max_steps=4, batch_size=8, updates_per_step=2, precision="bf16-mixed")
    assert precisions(generation(tmp_path, "64-true", own), real) == ("bf16-mixed", "64-true")


def test_the_precision_of_all_stages_identifies_the_decoder(real, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "ensure", lambda stage, build: None)
    factory = generation(tmp_path, "bf16-mixed").factory
    decoding = decoder.Decoding(factory, DecoderConfig(max_steps=1), None, real.stage, views=1)
    assert decoding.train().inputs["training.precision"] == "bf16-mixed"


def test_without_held_out_rows_the_samples_are_watched_all_the_same(real, tmp_path, monkeypatch, caplog):
    looks = []
    monkeypatch.setattr(
        FidelityMonitor, "_look", lambda self, trainer, model: looks.append(trainer.global_step)
    )
    monkeypatch.setattr(FidelityMonitor, "_affordable", lambda self: True)
    training = StageTraining(max_steps=20, batch_size=8, updates_per_step=2, validate_every=6)
    generation(tmp_path, training=training, monitor=MonitorConfig(10)).train(real)
    assert looks == [6, 12, 18]
    assert "nothing to validate on" not in caplog.text


def test_a_validation_of_nothing_is_said(real, tmp_path, caplog):
    training = StageTraining(max_steps=4, batch_size=8, updates_per_step=2, validate_every=2)
    generation(tmp_path, training=training).train(real)
    assert "training.validate_every is 2, but there is nothing to validate on" in caplog.text


@pytest.mark.parametrize("default", [None, "32-true", "32", 32])
def test_float32_for_all_stages_is_recorded_as_no_precision(tmp_path, default):
    factory = generation(tmp_path, default).factory
    assert factory.precision is None
    recorded = {"max_steps": 4, "batch_size": 8, "precision": None}
    assert SHORT.result_inputs(factory.precision) == recorded
    auto = DecoderConfig(max_steps=4, batch_size=8, precision="auto").training()
    assert auto.result_inputs("bf16-mixed") == {**recorded, "precision": "auto"}
