"""``fit`` of a model without the stages before it: diffusion on a store, agents on stores, online SAC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer

from lightning_synther.__main__ import main
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from lightning_synther.transition import TransitionSpec
from tests.stages.tiny import CONFIGS

TRAINER = {"max_steps": 12, "accelerator": "cpu"}


class StopAtOnce(Callback):
    """Ends a training after its first batch."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = True


def config(path: Path, model: dict[str, Any], data: dict[str, Any], **more: Any) -> list[str]:
    """Command line of ``fit`` with a config of one model and its data."""
    content = {"model": model, "data": data, "trainer": TRAINER, "checkpoint_every": 4, **more}
    path.write_text(yaml.safe_dump(content))
    return ["fit", f"--config={path}", f"--run_dir={path.with_suffix('')}"]


def rows_config(path: Path, run: Path) -> list[str]:
    stores = {"store": str(run / "latents/train"), "heldout": str(run / "latents/heldout")}
    return config(
        path,
        {"class_path": "lightning_synther.LatentDiffusion", "init_args": {"width": 16, "num_layers": 1}},
        {"class_path": "lightning_synther.RowData", "init_args": {**stores, "updates_per_step": 2}},
    )


def heads_config(path: Path, run: Path, **model: Any) -> list[str]:
    stores = {"real": str(run / "latents/train"), "synthetic": str(run / "synthesis/store")}
    settings = {
        "observation": "latents",
        "encoder_checkpoint": str(run / "encoder/final.ckpt"),
        "hidden_dim": 8,
    }
    return config(
        path,
        {"class_path": "lightning_synther.BC", "init_args": {**settings, **model}},
        {"class_path": "lightning_synther.ReplayData", "init_args": {**stores, "updates_per_step": 2}},
        evaluation={"episodes": 1},
    )


def other_store(path: Path, observation_dim: int = 5) -> Path:
    spec = TransitionSpec(observation_dim=observation_dim, action_dim=1, discount=0.99**3)
    with StoreWriter(path, spec, 40, seed=0, producer="test", fingerprint="") as writer:
        writer.write(0, torch.zeros(40, spec.dim))
        writer.commit()
    return path


def messages(argv: list[str], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level("INFO", logger="lightning_synther"):
        assert main(argv) == 0
    return caplog.messages


def test_a_diffusion_model_alone_takes_its_sizes_from_the_store(finished_run, tmp_path, caplog):
    argv = rows_config(tmp_path / "alone.yaml", finished_run)
    messages([*argv, "--trainer.val_check_interval=2"], caplog)
    checkpoint = tmp_path / "alone" / "diffusion" / "final.ckpt"
    spec = TransitionStore.open(finished_run / "latents" / "train").spec
    assert load_checkpoint(checkpoint).spec == spec
    assert "diffusion: finished earlier, reused" in messages(
        [*argv, "--trainer.val_check_interval=2"], caplog
    )
    sizes = ["--synthesis.num_transitions=10", "--diffusion.model.num_sampling_steps=2"]
    assert main(["predict", *argv[1:], *sizes]) == 0
    assert TransitionStore.open(tmp_path / "alone" / "predict").spec == spec


def test_it_resumes_from_its_last_checkpoint(finished_run, tmp_path, caplog, monkeypatch):
    argv = rows_config(tmp_path / "alone.yaml", finished_run)
    messages(argv, caplog)
    whole = load_checkpoint(tmp_path / "alone" / "diffusion" / "final.ckpt").state_dict()

    argv = rows_config(tmp_path / "again.yaml", finished_run)
    monkeypatch.setattr("lightning_synther.stages.trainer.training.save_final", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(argv)
    monkeypatch.undo()
    assert "diffusion: was interrupted, goes on" in messages(argv, caplog)
    resumed = load_checkpoint(tmp_path / "again" / "diffusion" / "final.ckpt").state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_an_agent_on_stores_given_by_hand(run, tmp_path, caplog):
    argv = heads_config(tmp_path / "heads.yaml", run)
    messages(argv, caplog)
    summary = json.loads((tmp_path / "heads" / "summary.json").read_text())
    assert summary["episodes"] == 1
    assert load_checkpoint(tmp_path / "heads" / "agent" / "final.ckpt").env["task"] == "cartpole_swingup"
    assert "agent: finished earlier, reused" in messages(argv, caplog)


def test_arms_of_stores_given_by_hand_are_trained(run, tmp_path, caplog):
    argv = heads_config(tmp_path / "heads.yaml", run)
    said = messages([*argv, "--comparison.real_only=true"], caplog)
    assert "agent_real_only: starts" in said
    assert json.loads((tmp_path / "heads" / "summary.json").read_text())["real_only"]["episodes"] == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--data.mixing=real"], "data.mixing is 'real' and leaves it out"),
        (["--data.mixing=ratio", "--data.ratio=0"], "data.mixing is 'ratio' and leaves it out"),
        (
            ["--data.real=null", "--data.mixing=synthetic", "--comparison.real_only=true"],
            "comparison.real_only is true, but data.real is not given",
        ),
    ],
)
def test_stores_that_do_not_fit_the_mixing_are_refused(run, tmp_path, capsys, flags, sentence):
    assert main([*heads_config(tmp_path / "heads.yaml", run), *flags]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "heads").exists()


def test_an_arm_of_an_online_run_is_refused(tmp_path, capsys):
    argv = ["fit", f"--config={CONFIGS / 'sac_state.yaml'}", f"--run_dir={tmp_path / 'run'}"]
    assert main([*argv, "--comparison.real_only=true"]) == 1
    assert "OnlineData has no stores to choose from: set it to false" in capsys.readouterr().err


def test_a_callback_that_ends_the_training_is_an_input_and_is_said(run, tmp_path, caplog):
    argv = heads_config(tmp_path / "heads.yaml", run)
    messages(argv, caplog)
    overlay = tmp_path / "stop.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": f"{__name__}.StopAtOnce"}]}}))
    said = messages([*argv, f"--config={overlay}"], caplog)
    assert any(line.startswith("agent: rebuilt, because these changed: callbacks: unset") for line in said)
    assert "agent: a callback ended it after 2 of 12 updates" in said


def test_other_contents_of_a_store_train_the_agent_anew(run, tmp_path, caplog):
    argv = heads_config(tmp_path / "heads.yaml", run)
    messages(argv, caplog)
    (run / "synthesis" / "store").rename(run / "moved")
    assert "agent: finished earlier, reused" in messages([*argv, f"--data.synthetic={run / 'moved'}"], caplog)
    path = run / "moved" / "metadata.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 5'))
    said = messages([*argv, f"--data.synthetic={run / 'moved'}"], caplog)
    assert "agent: rebuilt, because these changed: synthetic.seed: 0 -> 5" in said


@pytest.mark.parametrize("kinds", [["synthetic"], ["real", "synthetic"]])
def test_a_store_of_another_latent_size_is_refused(run, tmp_path, capsys, kinds):
    store = other_store(tmp_path / "store")
    argv = heads_config(tmp_path / "heads.yaml", run)
    assert main([*argv, *(f"--data.{kind}={store}" for kind in kinds)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    wanted = "has 12 numbers a row" if len(kinds) == 1 else "the data have observations (5,)"
    assert wanted in said


def test_an_encoder_of_another_task_is_refused(run, tmp_path, capsys):
    env = {"task": "cheetah_run", "image_size": 64}
    assert main(heads_config(tmp_path / "heads.yaml", run, env=env)) == 1
    assert "the config's task is cheetah_run, but checkpoint" in capsys.readouterr().err


def test_a_missing_store_is_refused(run, tmp_path, capsys):
    argv = rows_config(tmp_path / "alone.yaml", run)
    assert main([*argv, "--data.store=/nothing"]) == 1
    assert "there is no store of transitions at /nothing" in capsys.readouterr().err


def test_online_sac_from_its_config(tmp_path, caplog):
    short = ["--data.env.time_limit=0.2", "--data.start_steps=300"]
    sizes = ["--trainer.max_steps=16", "--trainer.val_check_interval=null", "--evaluation.episodes=1"]
    argv = ["fit", f"--config={CONFIGS / 'sac_state.yaml'}", f"--run_dir={tmp_path}", *short, *sizes]
    assert "agent: starts" in messages([*argv, "--trainer.accelerator=cpu"], caplog)
    assert "agent: finished earlier, reused" in messages([*argv, "--trainer.accelerator=cpu"], caplog)
    assert json.loads((tmp_path / "summary.json").read_text())["data_source"] is None


def states_store(path: Path, observation_dim: int = 5, **extra: Any) -> Path:
    """States of cartpole_swingup, or what says so."""
    spec = TransitionSpec(observation_dim=observation_dim, action_dim=1, discount=0.99)
    with StoreWriter(path, spec, 40, seed=0, producer="test", fingerprint="", extra=extra) as writer:
        writer.write(0, torch.rand(40, spec.dim, generator=torch.Generator().manual_seed(0)))
        writer.commit()
    return path


def test_an_agent_on_states_takes_its_sizes_and_its_task_from_the_store(tmp_path, caplog):
    store = states_store(tmp_path / "store", task="cartpole_swingup", action_repeat=4, time_limit=0.2)
    argv = config(
        tmp_path / "states.yaml",
        {
            "class_path": "lightning_synther.IQL",
            "init_args": {"observation": "states", "hidden_dim": 8, "normalize_states": True},
        },
        {
            "class_path": "lightning_synther.ReplayData",
            "init_args": {"real": str(store), "mixing": "real", "updates_per_step": 2},
        },
        evaluation={"episodes": 1},
    )
    messages(argv, caplog)
    agent = load_checkpoint(tmp_path / "states" / "agent" / "final.ckpt")
    assert agent.perception.shape == (5,)
    assert agent.env == {
        "task": "cartpole_swingup",
        "observation": "states",
        "action_repeat": 4,
        "time_limit": 0.2,
    }
    assert (agent.encoder.mean > 0).all()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--trainer.accumulate_grad_batches=4", "raise data.batch_size instead"),
        ("--trainer.gradient_clip_val=1.0", "remove it"),
        ("--trainer.max_time=00:00:01:00", "a run is as long as trainer.max_steps says"),
        ("--trainer.fast_dev_run=true", "its few batches would pass for a finished training"),
        ("--trainer.val_check_interval=0.5", "a share of an epoch"),
    ],
)
def test_settings_that_a_run_cannot_honour_are_refused(tmp_path, capsys, flag, said):
    store = states_store(tmp_path / "store")
    argv = config(
        tmp_path / "states.yaml",
        {"class_path": "lightning_synther.TD3BC", "init_args": {"observation": "states"}},
        {"class_path": "lightning_synther.ReplayData", "init_args": {"real": str(store), "mixing": "real"}},
    )
    assert main([*argv, "--trainer.max_steps=20", flag]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert flag.removeprefix("--").split("=")[0] in error
    assert said in error
