"""SynthER and Prioritized Generative Replay as configs: on states collected here, and over the pixel chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_synther.__main__ import main
from lightning_synther.data.conditions import available_conditions, read_condition
from lightning_synther.data.store import TransitionStore
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from lightning_synther.synthesis import conditions, relevance
from lightning_synther.synthesis.conditions import train_curiosity
from tests.stages.tiny import CONFIGS, arguments

TINY_STATE = [
    "--model.width=64",
    "--model.num_layers=2",
    "--model.time_dim=32",
    "--model.lr=2e-3",
    "--model.sampler=dpmpp_2m_sde",
    "--model.num_sampling_steps=8",
    "--model.sigma_min=auto",
    "--model.sigma_max=auto",
    "--trainer.max_steps=200",
    "--trainer.val_check_interval=20",
    "--trainer.accelerator=cpu",
    "--synthesis.num_transitions=600",
    "--synthesis.chunk_size=250",
]


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    where = ["collect-states", "--task=cheetah_run", "--policy=medium", "--time_limit=2"]
    assert main([*where, "--episodes=4", f"--path={folder / 'train'}"]) == 0
    assert main([*where, "--episodes=1", "--seed=1", f"--path={folder / 'heldout'}"]) == 0
    return folder


def run_config(name: str, states: Path, run_dir: Path, *more: str) -> TransitionStore:
    stores = [f"--data.store={states / 'train'}", f"--data.heldout={states / 'heldout'}"]
    argv = [f"--config={CONFIGS / name}.yaml", f"--run_dir={run_dir}", *stores, *TINY_STATE, *more]
    assert main(["fit", *argv]) == 0
    assert main(["predict", *argv]) == 0
    return TransitionStore.open(run_dir / "predict")


def test_synther_on_states(states, tmp_path):
    store = run_config("synther_state", states, tmp_path)
    real = TransitionStore.open(states / "train")
    assert store.spec == real.spec
    assert len(store) == 600
    model = load_checkpoint(tmp_path / "diffusion" / "final.ckpt")
    assert 0.02 <= model.sampler.sigma_min <= 0.1
    reward = slice(23, 24)
    assert abs(store.rows[:, reward].mean() - real.rows[:, reward].mean()) < real.rows[:, reward].std()


def test_prioritized_generative_replay_on_states(states, tmp_path, monkeypatch):
    """Synthetic transitions are more curious than the data."""
    monkeypatch.setattr(conditions, "CURIOSITY_UPDATES", 200)
    store = run_config("pgr_state", states, tmp_path)
    assert "curiosity" in available_conditions(states / "heldout")
    real = TransitionStore.open(states / "train")
    model = load_checkpoint(tmp_path / "diffusion" / "final.ckpt")
    assert model.conditioner.sizes == {"curiosity": 1}
    module = train_curiosity(real, num_updates=200)
    torch.testing.assert_close(
        relevance.curiosity(real.spec.unflatten(real.mapped), module),
        read_condition(real.path, "curiosity"),
        rtol=1e-3,
        atol=1e-3,
    )
    curiosity = relevance.curiosity(store.spec.unflatten(store.mapped), module).mean()
    assert curiosity > read_condition(real.path, "curiosity").mean()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--data.conditions=[novelty]"], "has no condition 'novelty'"),
        (["--data.conditions=[td_error]"], "'td_error' needs an agent, and there is none here"),
    ],
)
def test_conditions_that_nobody_has_are_refused(states, tmp_path, capsys, flags, sentence):
    stores = [f"--data.store={states / 'train'}", f"--data.heldout={states / 'heldout'}"]
    config = f"--config={CONFIGS / 'pgr_state.yaml'}"
    assert main(["fit", config, f"--run_dir={tmp_path}", *stores, *TINY_STATE, *flags]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("overlay", "flags", "changed"),
    [
        ("pgr", ["--diffusion.conditions=[curiosity,return_to_go]"], {"diffusion", "synthesis"}),
        ("pgr", ["--diffusion.conditions=[td_error]"], {"diffusion", "synthesis"}),
        ("pgd", [], {"synthesis"}),
    ],
)
def test_over_the_pixel_chain(run, root, tmp_path, caplog, monkeypatch, overlay, flags, changed):
    monkeypatch.setattr(conditions, "CURIOSITY_UPDATES", 10)
    path = f"--config={CONFIGS / 'generator' / overlay}.yaml"
    argv = arguments(tmp_path / "tiny.yaml", root, run, *flags)
    argv = [*argv[:3], path, *argv[3:]]
    caplog.clear()
    with caplog.at_level("INFO", logger="lightning_synther"):
        assert main(argv) == 0
    rebuilt = {line.split(":")[0] for line in caplog.messages if ": rebuilt, because" in line}
    assert changed <= rebuilt
    assert not rebuilt & {"encoder", "latents", "dataset"}
    model = load_checkpoint(run / "diffusion" / "final.ckpt")
    assert bool(model.conditioner.dim) == (overlay == "pgr")
    assert len(TransitionStore.open(run / "synthesis" / "store")) == 100
    record = json.loads((run / "synthesis" / "stage.json").read_text())
    assert record["finished"]
