"""The whole job on a timm backbone with random weights: stage 1 is replaced, the agent is scored from pixels."""

import json
import logging

import pytest
import torch

from lightning_synther.__main__ import main
from lightning_synther.agents.program import export_program
from lightning_synther.data.store import TransitionStore
from lightning_synther.networks.timm_encoder import TimmEncoder
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from tests.stages.tiny import CONFIGS, arguments, fit

pytest.importorskip("timm")
BACKBONE = "--encoder.model.init_args."
SMALL = (
    f"--config={CONFIGS / 'encoder' / 'timm.yaml'}",
    f"{BACKBONE}model_name=test_convnext.r160_in1k",
    f"{BACKBONE}weights=random",
    f"{BACKBONE}num_components=4",
    f"{BACKBONE}input_size=32",
)


def test_the_main_job_on_a_backbone(root, tmp_path, caplog, monkeypatch):
    with caplog.at_level(logging.INFO, logger="lightning_synther"):
        summary = fit(tmp_path / "tiny.yaml", root, tmp_path / "run", *SMALL, f"--run_dir={tmp_path / 'run'}")
    assert any("are RANDOM" in message for message in caplog.messages)
    assert any("encoder.training is not used" in message for message in caplog.messages)
    assert summary["episodes"] == 2
    assert summary["real_only"]["episodes"] == 2
    record = json.loads((tmp_path / "run" / "encoder" / "stage.json").read_text())
    assert 0 < record["results"]["variance_kept"] <= 1

    agent = load_checkpoint(tmp_path / "run" / "agent" / "final.ckpt")
    assert isinstance(agent.pixel_encoder, TimmEncoder)
    store = TransitionStore.open(tmp_path / "run" / "latents" / "train")
    assert store.spec.observation_dim == agent.pixel_encoder.latent_dim == 12
    frames = torch.randint(256, (2, 9, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(agent.policy(frames), agent.policy(agent.pixel_encoder.encode(frames)))
    fresh = type(agent)(**{**agent.hparams})
    for part in ("actor", "critic"):  # trunks train
        moved = getattr(agent, part).trunk.state_dict()["0.weight"]
        assert moved.shape == (50, 12)
        assert not torch.equal(moved, getattr(fresh, part).trunk.state_dict()["0.weight"])

    program = torch.export.load(export_program(agent, tmp_path / "policy.pt2")).module()
    torch.testing.assert_close(program(frames), agent.policy(frames))

    # Again: every stage is reused, and no frame is encoded.
    monkeypatch.setattr(TimmEncoder, "features", None)
    monkeypatch.setattr("lightning_synther.agents.scoring.ScoredAgent.eval_workers", 0)
    assert (
        fit(tmp_path / "tiny.yaml", root, tmp_path / "run", *SMALL, f"--run_dir={tmp_path / 'run'}")
        == summary
    )


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        (f"{BACKBONE}num_components=999", "num_components is 999"),
        (f"{BACKBONE}model_name=resnett", "timm has no model 'resnett'"),
        (f"{BACKBONE}weights=none.pth", "weights none.pth do not exist"),
        ("--model.heads=pretrained", "a timm backbone, which has none"),
    ],
)
def test_what_a_backbone_cannot_be(root, tmp_path, capsys, flag, sentence):
    assert main(arguments(tmp_path / "tiny.yaml", root, tmp_path / "run", *SMALL, flag)) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet10t.c3_in1k", "vit_tiny_patch16_224.augreg_in21k", "convnext_atto.d2_in1k"]
)
def test_real_architectures(root, tmp_path, name):
    flags = (
        *SMALL,
        f"{BACKBONE}model_name={name}",
        f"{BACKBONE}input_size=64",
        f"{BACKBONE}num_components=8",
    )
    assert fit(tmp_path / "tiny.yaml", root, tmp_path / "run", *flags)["episodes"] == 2
