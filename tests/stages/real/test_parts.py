"""Parts of a pixel dataset, an encoder of another run, and the arms of a comparison."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_synther.__main__ import main
from lightning_synther.data.conditions import read_condition
from lightning_synther.data.store import TransitionStore
from lightning_synther.online.collect import collect
from lightning_synther.stages.config.dataset import DatasetConfig
from lightning_synther.stages.config.sections import LatentsConfig
from lightning_synther.stages.real.given_encoder import GivenEncoder
from lightning_synther.stages.real.pixels import PixelSource
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from lightning_synther.stages.trainer.training import TrainerFactory
from tests.stages.tiny import STAGES, TINY, arguments, fit, rebuilt, said_by_stages

AGENT_ONLY = "--comparison.real_only=false"


@pytest.fixture
def refit(tmp_path, caplog):
    """Run ``fit`` on six episodes, two of which suffice for a diffusion model; what each stage said, by its name."""
    collect("cartpole_swingup", root=str(tmp_path), episodes=6, image_size=64, num_workers=0, time_limit=0.6)

    def call(*more: str) -> dict[str, str]:
        where = tmp_path / "tiny.yaml", tmp_path, tmp_path / "run"
        return said_by_stages(
            caplog, STAGES, lambda: fit(*where, AGENT_ONLY, "--data.dataset.time_limit=0.6", *more)
        )

    return call


def latents(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training rows, and the episode of each."""
    path = run / "latents" / "train"
    return TransitionStore.open(path).rows.copy(), read_condition(path, "episode")[:, 0].numpy()


def test_a_part_of_the_episodes_for_all_stages_or_all_but_the_encoder(refit, tmp_path):
    run = tmp_path / "run"
    refit()
    whole, of_whole = latents(run)
    said = refit("--data.fraction=0.4", "--encoder.fraction=all")
    assert rebuilt(said) == ["latents", "diffusion", "synthesis", "agent", "evaluation"]
    assert "subset.fraction: unset -> 0.4" in said["latents"]
    part, of_part = latents(run)
    assert len(np.unique(of_part)) == 2
    same = whole[np.isin(of_whole, of_part)]
    np.testing.assert_allclose(part, same, rtol=1e-4, atol=1e-5, err_msg="the same encoder")
    assert len(TransitionStore.open(run / "latents" / "heldout")) == len(whole) // 5

    said = refit("--data.fraction=0.4")
    assert rebuilt(said) == ["encoder", "latents", "diffusion", "synthesis", "agent", "evaluation"]
    assert "subset.fraction: unset -> 0.4" in said["encoder"]
    np.testing.assert_array_equal(latents(run)[1], of_part)

    said = refit("--data.fraction=0.4", "--data.fraction_seed=1")
    assert "subset.seed: 0 -> 1" in said["encoder"]


def test_no_episode_is_left(root, run, tmp_path, capsys):
    assert main(arguments(tmp_path / "c.yaml", root, run, "--data.fraction=0.09")) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: fraction 0.09 of the 5 episodes of ")
    assert "leaves none: give at least 0.1, or more data" in said


def test_an_encoder_of_another_run_takes_the_place_of_stage_1(finished_run, root, tmp_path, caplog):
    given = finished_run / "encoder" / "final.ckpt"
    flags = [f"--encoder.checkpoint={given}", AGENT_ONLY]
    with caplog.at_level(logging.INFO, logger="lightning_synther"):
        fit(tmp_path / "tiny.yaml", root, tmp_path / "run", *flags, "--comparison.synthetic_only=true")
    assert any("so encoder.model and encoder.training are not used" in words for words in caplog.messages)
    ours, theirs = (
        (folder / "latents" / "train" / "rows.npy").read_bytes()
        for folder in (tmp_path / "run", finished_run)
    )
    assert ours == theirs
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["real_only"] is None
    assert summary["synthetic_only"]["episodes"] == 2
    assert any(message.count("agent on synthetic data only: return") for message in caplog.messages)

    caplog.clear()
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes(given.read_bytes())
    with caplog.at_level(logging.INFO, logger="lightning_synther"):
        fit(tmp_path / "tiny.yaml", root, tmp_path / "run", f"--encoder.checkpoint={moved}", AGENT_ONLY)
    assert "encoder: finished earlier, reused" in caplog.messages, "the content counts, not the path"


@pytest.fixture
def encode(finished_run, root, tmp_path):
    """The stage of latents that a given encoder makes; what its rows are, and its inputs."""

    def call(shift: bool = False, seed: int = 0, **dataset: Any) -> tuple[str, bytes, dict[str, Any]]:
        settings = {**TINY["data"]["init_args"]["dataset"], "root": str(root), "time_limit": 0.2, **dataset}
        config = DatasetConfig(**settings)
        factory = TrainerFactory(tmp_path / "run", seed, {"accelerator": "cpu"})
        given = GivenEncoder(factory, str(finished_run / "encoder" / "final.ckpt"), config)
        stage = PixelSource(factory, config, given, LatentsConfig(shift=shift)).provide().stage
        return stage.fingerprint, (stage.directory / "train" / "rows.npy").read_bytes(), stage.inputs

    return call


@pytest.mark.parametrize(
    "change",
    [
        {"n_step": 1},
        {"gamma": 0.9},
        {"holdout_fraction": 0.5},
        {"num_episodes": 4},
        {"shift": True, "seed": 1},
    ],
)
def test_latents_of_a_given_encoder_follow_the_data(encode, change):
    first = encode(shift="shift" in change)
    same = encode(shift="shift" in change)
    assert same == first
    changed = encode(**change)
    assert changed[0] != first[0]
    assert changed[1] != first[1]


def test_latents_of_a_trained_encoder_depend_on_it_alone(finished_run):
    record = json.loads((finished_run / "latents" / "stage.json").read_text())
    assert sorted(record["inputs"]) == ["encoder", "latents.batch_size", "latents.shift", "latents.views"]


def test_the_agent_of_a_given_encoder_guides_and_judges(finished_run, root, tmp_path):
    given = finished_run / "encoder" / "final.ckpt"
    flags = ["--diffusion.conditions=[td_error]", "--synthesis.prompt=top", "--synthesis.policy_guidance=0.5"]
    fit(tmp_path / "c.yaml", root, tmp_path / "run", f"--encoder.checkpoint={given}", AGENT_ONLY, *flags)
    store = TransitionStore.open(tmp_path / "run" / "synthesis" / "store")
    assert torch.isfinite(store.mapped).all()
    model = load_checkpoint(tmp_path / "run" / "diffusion" / "final.ckpt")
    assert model.conditioner.sizes == {"td_error": 1}


@pytest.mark.parametrize(
    ("checkpoint", "flags", "sentence"),
    [
        ("encoder", ["--data.dataset.action_repeat=4"], "the config's action_repeat is 4, but checkpoint"),
        ("encoder", ["--data.dataset.image_size=84"], "the config's image_size is 84, but checkpoint"),
        ("diffusion", [], "holds no pixel agent, so no encoder: give one of stage 1"),
        ("nothing", [], "final.ckpt does not exist: give the path of a final.ckpt"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_sentence(
    finished_run, root, tmp_path, capsys, checkpoint, flags, sentence
):
    given = f"--encoder.checkpoint={finished_run / checkpoint / 'final.ckpt'}"
    assert main(arguments(tmp_path / "c.yaml", root, tmp_path / "run", given, *flags)) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
