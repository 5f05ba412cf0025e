"""Online training from pixels by the command line, at tiny size, with and without synthetic latents."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_synther.__main__ import main
from lightning_synther.agents.scoring import ScoredAgent
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from tests.stages.synthetic.online_tiny import measured, scalars
from tests.stages.tiny import CONFIGS

SHORT = (  # 10 agent steps an episode
    "--data.env.task=cartpole_swingup",
    "--data.env.time_limit=0.2",
    "--data.env.image_size=64",
    "--data.start_steps=12",
    "--data.batch_size=8",
    "--model.hidden_dim=8",
    "--model.feature_dim=4",
    "--model.log_every_n_updates=4",
    "--trainer.accelerator=cpu",
    "--evaluation.episodes=1",
)
SYNTHETIC = (
    "--data.start_steps=32",
    "--data.resynthesise_every=10",
    "--diffusion.model.width=16",
    "--diffusion.model.num_layers=1",
    "--diffusion.model.sampler=dpmpp_2m_sde",
    "--diffusion.model.num_sampling_steps=4",
    "--diffusion.training.max_steps=20",
    "--synthesis.num_transitions=60",
    "--synthesis.chunk_size=30",
)


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(ScoredAgent, "eval_workers", 0)


def arguments(config, run_dir, *flags):
    return ["fit", f"--config={CONFIGS / config}", f"--run_dir={run_dir}", *SHORT, *flags]


def test_drq_v2_trains_online(tmp_path):
    assert (
        main(arguments("drqv2_online.yaml", tmp_path, "--trainer.max_steps=8", "--checkpoint_every=4")) == 0
    )
    online = json.loads((tmp_path / "summary.json").read_text())["online"]
    assert online["agent_steps"] == 12 + 8 / 0.5
    frames = tmp_path / "agent" / "replay" / "rank_0" / "frames.rows"
    assert frames.stat().st_size == (2 * 28 + 1) * 3 * 72 * 72
    state = torch.load(tmp_path / "agent" / "last.ckpt", weights_only=True)["OnlinePixelData"]
    assert state["replay"]["num_rows"] == 28 + 3  # 28 steps in three episodes


def test_synthetic_latents_train_the_heads_and_a_resumed_run_ends_the_same(tmp_path, monkeypatch):
    flags = [*SYNTHETIC, "--trainer.max_steps=32", "--checkpoint_every=8"]
    assert main(arguments("synther_pixels_online.yaml", tmp_path / "whole", *flags)) == 0
    resyntheses = measured(tmp_path / "whole")["resyntheses"]
    assert [figures["agent_steps"] for figures in resyntheses] == [34, 40, 50, 60]
    assert "encoder_drift" not in resyntheses[0]
    assert all(figures["encoder_drift"] > 0 for figures in resyntheses[1:])
    for tag in ("train/critic_loss", "train/latent_critic_loss", "train/latent_actor_loss"):
        assert len(scalars(tmp_path / "whole", tag)) >= 7

    def killed(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("lightning_synther.stages.synthetic.resynthesis.Resynthesis._judge", killed)
    with pytest.raises(ZeroDivisionError):  # in the first resynthesis, before any checkpoint
        main(arguments("synther_pixels_online.yaml", tmp_path / "again", *flags))
    monkeypatch.undo()
    monkeypatch.setattr(ScoredAgent, "eval_workers", 0)
    monkeypatch.setattr("lightning_synther.stages.trainer.training.save_final", killed)
    with pytest.raises(ZeroDivisionError):
        main(arguments("synther_pixels_online.yaml", tmp_path / "again", *flags, "--checkpoint_every=24"))
    monkeypatch.undo()
    monkeypatch.setattr(ScoredAgent, "eval_workers", 0)
    assert main(arguments("synther_pixels_online.yaml", tmp_path / "again", *flags)) == 0
    assert measured(tmp_path / "again") == measured(tmp_path / "whole")
    final, other = (load_checkpoint(tmp_path / name / "agent" / "final.ckpt") for name in ("whole", "again"))
    assert all(torch.equal(a, b) for a, b in zip(final.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("config", "flags", "sentence"),
    [
        ("drqv2_online.yaml", ["--data.num_envs=2", "--data.updates_per_step=4"], "set it to 1"),
        ("drqv2_online.yaml", ["--data.env.observation=states"], "set it to 'pixels' for OnlinePixelData"),
        ("drqv2_online.yaml", ["--data.n_step=0"], "data.n_step is 0"),
        ("synther_pixels_online.yaml", ["--model=BC"], "BC does not train on pixels and latents"),
    ],
)
def test_settings_that_cannot_be_honoured(tmp_path, capsys, config, flags, sentence):
    assert main(arguments(config, tmp_path, "--trainer.max_steps=8", *flags)) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
