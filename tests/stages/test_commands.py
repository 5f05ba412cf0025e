"""``validate``, ``test`` and ``predict`` on the checkpoints of a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lightning_synther.__main__ import main
from lightning_synther.agents import scoring
from lightning_synther.data.store import TransitionStore
from lightning_synther.evaluation.episodes import episode_seed
from lightning_synther.evaluation.rollout import EpisodeResult
from tests.stages.tiny import BASE, arguments

CPU = "--trainer.accelerator=cpu"


@pytest.fixture
def agent(run: Path) -> Path:
    return run / "agent" / "final.ckpt"


@pytest.fixture
def diffusion(run: Path) -> Path:
    return run / "diffusion" / "final.ckpt"


def test_another_online_environment_is_not_scored_as_the_config_says(tmp_path, capsys):
    config = f"--config={BASE.parent / 'sac_state.yaml'}"
    task, tiny = "--data.env.task=cartpole_swingup", ["--data.env.time_limit=0.2", "--data.start_steps=300"]
    steps = ["--trainer.max_steps=8", "--trainer.val_check_interval=null", "--evaluation.episodes=1", CPU]
    assert main(["fit", config, task, *tiny, *steps, f"--run_dir={tmp_path}"]) == 0
    capsys.readouterr()
    score = [
        "test",
        config,
        f"--ckpt_path={tmp_path / 'agent' / 'final.ckpt'}",
        CPU,
        "--evaluation.episodes=1",
    ]
    assert main([*score, tiny[0], "--data.env.task=walker_walk"]) == 1
    assert "the config's task is walker_walk, but checkpoint" in capsys.readouterr().err
    assert main([*score, tiny[0], task]) == 0


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_a_checkpoint_alone_is_scored(verb, run, agent, caplog):
    with caplog.at_level("INFO", logger="lightning_synther"):
        assert main([verb, f"--ckpt_path={agent}", CPU, "--evaluation.episodes=2"]) == 0
    assert caplog.messages[-1].startswith(f"{agent}: return ")
    assert "2 episodes" in caplog.messages[-1]
    scores = json.loads((run / f"{verb}.json").read_text())
    fitted = json.loads((run / "summary.json").read_text())
    assert (scores["returns"] == fitted["returns"]) == (verb == "test")
    assert scores["checkpoint"] == str(agent)


@pytest.fixture
def episodes(monkeypatch):
    """Seeds of the episodes that would be played."""
    seen: list[int] = []

    def play(policy, env, seeds, device, **options):
        seen.extend(seeds.tolist())
        return [EpisodeResult(seed, 0.0, 1) for seed in seeds.tolist()]

    monkeypatch.setattr(scoring, "run_episodes", play)
    return seen


@pytest.mark.parametrize(("verb", "seed"), [("validate", 0), ("test", 7)])
def test_a_checkpoint_is_chosen_on_other_episodes_than_it_is_scored_on(verb, seed, agent, episodes):
    flags = ["--evaluation.episodes=2", "--evaluation.seed=7"]
    assert main([verb, f"--ckpt_path={agent}", CPU, *flags]) == 0
    assert episodes == [episode_seed(seed, 0), episode_seed(seed, 1)]


@pytest.mark.parametrize(("verb", "seed"), [("validate", 5), ("test", 1)])
def test_validation_is_on_the_episodes_that_a_config_trains_with(verb, seed, run, root, tmp_path, episodes):
    argv = arguments(tmp_path / "tiny.yaml", root, run, "--evaluation.episodes=3", "--data.eval_seed=5")
    assert main([verb, *argv[1:]]) == 0
    assert episodes == [episode_seed(seed, index) for index in range(3)]


def test_a_config_alone_scores_its_run(run, root, tmp_path):
    argv = arguments(tmp_path / "tiny.yaml", root, run, "--evaluation.episodes=1")
    assert main(["test", *argv[1:]]) == 0
    assert json.loads((run / "test.json").read_text())["episodes"] == 1


def test_another_evaluation_seed_gives_other_episodes(run, agent):
    flags = ["--evaluation.episodes=1", "--evaluation.seed=7"]
    assert main(["test", f"--ckpt_path={agent}", CPU, *flags]) == 0
    fitted = json.loads((run / "summary.json").read_text())
    assert json.loads((run / "test.json").read_text())["returns"][0] != fitted["returns"][0]


def test_predict_writes_a_store_and_an_npz(diffusion, tmp_path):
    sizes = ["--synthesis.num_transitions=50", "--synthesis.chunk_size=20"]
    where = [f"--output={tmp_path / 'store'}", f"--npz={tmp_path / 'store.npz'}"]
    assert main(["predict", f"--ckpt_path={diffusion}", CPU, *sizes, *where]) == 0
    store = TransitionStore.open(tmp_path / "store")
    assert store.rows.shape == (50, store.spec.dim)
    with np.load(tmp_path / "store.npz") as npz:
        np.testing.assert_array_equal(npz["observations"], store.rows[:, store.spec.fields["observation"]])


def test_predict_again_takes_the_finished_store_or_says_what_differs(run, diffusion, capsys):
    command = ["predict", f"--ckpt_path={diffusion}", CPU, "--synthesis.num_transitions=50"]
    assert main(command) == 0
    before = (run / "predict" / "rows.npy").stat().st_mtime_ns
    assert main(command) == 0
    assert (run / "predict" / "rows.npy").stat().st_mtime_ns == before
    assert main([*command[:-1], "--synthesis.num_transitions=60"]) == 1
    said = capsys.readouterr().err
    assert (
        "was begun with num_transitions=50, now num_transitions=60: delete it, or give another path\n" in said
    )
    assert main([*command[:-1], "--synthesis.num_transitions=60", f"--output={run / 'other'}"]) == 0


@pytest.mark.parametrize(
    "command",
    [
        "validate --ckpt_path={agent} --run_dir={file} --trainer.accelerator=cpu",
        "predict --ckpt_path={diffusion} --output={file}/x --synthesis.num_transitions=50 --trainer.accelerator=cpu",
        "predict --ckpt_path={diffusion} --npz={file}/x.npz --synthesis.num_transitions=50 --trainer.accelerator=cpu",
        "export --ckpt_path={agent} --path={file}/p.pt2",
    ],
)
def test_a_path_through_a_file_is_one_sentence(command, agent, diffusion, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    assert main(command.format(agent=agent, diffusion=diffusion, file=file).split()) == 1
    said = capsys.readouterr().err
    assert f"error: cannot read or write {file}" in said
    assert said.endswith(": give another path\n")


def damage(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:2000])
    return path


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("test --ckpt_path={agent}x", "agent/final.ckptx does not exist: give the path of a final.ckpt"),
        ("test --ckpt_path={damaged}", "damaged.ckpt cannot be read (PytorchStreamReader failed"),
        ("test --ckpt_path={foreign}", "summary.json cannot be read"),
        ("test --ckpt_path={diffusion}", "test runs a policy, but "),
        ("predict --ckpt_path={agent}", "predict samples from a diffusion model, but "),
        (
            "test --ckpt_path={agent} --config={base}",
            "the config's task is cheetah_run, but checkpoint {agent} was trained on task cartpole_swingup",
        ),
        ("test --ckpt_path={agent} --evaluation.episodes=0", "evaluation.episodes is 0: give at least 1"),
    ],
)
def test_a_wrong_checkpoint_is_one_sentence(command, sentence, run, agent, diffusion, tmp_path, capsys):
    damaged = damage(Path(shutil.copy(agent, tmp_path / "damaged.ckpt")))
    names = {
        "agent": agent,
        "diffusion": diffusion,
        "damaged": damaged,
        "foreign": run / "summary.json",
        "base": BASE,
    }
    capsys.readouterr()
    assert main([*command.format(**names).split(), CPU]) == 1
    said = capsys.readouterr().err
    assert sentence.format(**names) in said
    assert said.count("\n") == 1
