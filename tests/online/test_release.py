"""From a run by its config to a policy with its card: what is kept, what the card says, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightning_synther.__main__ import main
from lightning_synther.agents.sac_module import SAC
from lightning_synther.online.policies import load_policy
from lightning_synther.online.training_record import Episode, learning_curve

CONFIG = Path(__file__).parents[2] / "configs" / "sac_state.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "cartpole"
    sizes = ["--trainer.max_steps=48", "--evaluation.episodes=1", "--keep_every=16", "--data.start_steps=300"]
    env = ["--data.env.task=cartpole_balance", "--data.env.time_limit=0.2", "--trainer.accelerator=cpu"]
    assert main(["fit", f"--config={CONFIG}", f"--run_dir={run_dir}", *env, *sizes]) == 0
    return run_dir


def test_the_data_give_the_agent_its_environment_and_sizes(run):
    agent = SAC.load_from_checkpoint(run / "agent" / "final.ckpt")
    assert agent.env["task"] == "cartpole_balance"
    assert agent.env["time_limit"] == 0.2
    assert (agent.hparams["observation_dim"], agent.hparams["action_dim"]) == (5, 1)


def test_kept_checkpoints_are_small_and_load(run):
    kept = sorted(path.name for path in (run / "agent").glob("updates_*"))
    assert kept == ["updates_00000016.ckpt", "updates_00000032.ckpt", "updates_00000048.ckpt"]
    agents = [SAC.load_from_checkpoint(run / "agent" / name) for name in (*kept, "final.ckpt")]
    assert [agent.num_updates for agent in agents] == [16, 32, 48, 48]
    states = torch.randn(3, 5)
    assert torch.equal(agents[2].policy(states), agents[3].policy(states))
    assert not torch.equal(agents[0].policy(states), agents[1].policy(states))
    content = torch.load(run / "agent" / kept[0], weights_only=True)
    assert not {"optimizer_states", "OnlineData"} & set(content)


def test_export_policy_writes_policy_and_card(run, tmp_path, capsys):
    path = tmp_path / "cartpole_balance" / "low.safetensors"
    argv = ["export-policy", f"--ckpt_path={run / 'agent' / 'updates_00000032.ckpt'}", f"--path={path}"]
    assert main([*argv, "--note=a test"]) == 0
    card = json.loads(path.with_suffix(".json").read_text())
    assert (card["task"], card["level"], card["note"]) == ("cartpole_balance", "low", "a test")
    assert (card["num_updates"], card["agent_steps"], card["seed"]) == (32, 332, 0)
    assert card["command"].startswith("python -m lightning_synther fit --config=")
    assert len(card["returns"]) == 10
    curve = card["learning_curve"]
    assert 300 < curve[-1][0] <= 332  # nothing from after this checkpoint
    assert all(0 <= value <= 20 for _, value in curve)
    assert card["minutes"] >= 0
    assert load_policy(str(path), "cartpole_balance").action_repeat == 2
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["low.json", "low.safetensors"]


def test_a_curve_is_the_mean_of_successive_episodes():
    episodes = [Episode(10 * i, float(i), 0.0) for i in range(1, 8)]
    assert learning_curve(episodes, points=3) == [[30, 2.0], [60, 5.0], [70, 7.0]]
    assert learning_curve(episodes[:2], points=3) == [[10, 1.0], [20, 2.0]]
    assert learning_curve([]) == []


def test_what_cannot_be_exported_is_one_sentence(run, tmp_path, capsys):
    alone = tmp_path / "elsewhere" / "agent" / "final.ckpt"
    alone.parent.mkdir(parents=True)
    shutil.copy(run / "agent" / "final.ckpt", alone)
    good = run / "agent" / "final.ckpt"
    (tmp_path / "file").touch()
    for ckpt, path, said in (
        (
            run / "agent" / "none.ckpt",
            "x.safetensors",
            "agent/none.ckpt does not exist: give the path of a final.ckpt",
        ),
        (run / "config.yaml", "x.safetensors", "cannot be read"),
        (alone, "x.safetensors", "is not the folder of an online run"),
        (good, "x.pt", "is a .safetensors file"),
        (good, "file/p.safetensors", "(a part of it is a file, not a folder): give another path"),
    ):
        assert main(["export-policy", f"--ckpt_path={ckpt}", f"--path={tmp_path / path}"]) == 1
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not list(tmp_path.glob("*x.*"))


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--keep_every=-1", "keep_every is -1: give a number of updates, or 0"),
        ("--model.action_dim=3", "model.action_dim is 3, but the data decide it and have 6"),
        (
            "--model.env={task: walker_walk, observation: states}",
            "model.env.task is 'walker_walk', but the data",
        ),
    ],
)
def test_settings_that_cannot_be_honoured(tmp_path, capsys, flag, said):
    assert main(["fit", f"--config={CONFIG}", f"--run_dir={tmp_path}", flag]) == 1
    assert said in capsys.readouterr().err


def test_the_config_names_its_task_once():
    config = yaml.safe_load(CONFIG.read_text())
    assert CONFIG.read_text().count("task: ") == 1
    assert not {"env", "observation_dim", "action_dim"} & set(config["model"]["init_args"])
