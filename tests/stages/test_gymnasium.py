"""States of Gymnasium from data to score: offline and online runs, and a checkpoint that scores itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_synther.__main__ import main
from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.data.state_formats import load_states
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from tests.stages.tiny import CONFIGS

gymnasium = pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")
SHORT = {"task": "gymnasium:Hopper-v5", "env_kwargs": {"max_episode_steps": 12}}


def recorded() -> StateDataset:
    """60 random steps of Hopper in episodes of 12."""
    env = gymnasium.make("Hopper-v5", max_episode_steps=12)
    env.action_space.seed(0)
    rows, observation = [], env.reset(seed=0)[0]
    for _ in range(60):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, reward, terminated, truncated, following))
        observation = env.reset()[0] if terminated or truncated else following
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return StateDataset.from_arrays(*columns, env=SHORT, reference_scores=(0.0, 50.0), name="hopper")


def test_an_agent_on_recorded_states_is_scored_in_their_environment(tmp_path: Path) -> None:
    recorded().write(tmp_path / "store")
    run = tmp_path / "run"
    small = ["--model.init_args.hidden_dim=8", "--data.init_args.batch_size=16", "--evaluation.episodes=2"]
    length = ["--trainer.max_steps=20", "--trainer.val_check_interval=null", "--trainer.accelerator=cpu"]
    config = f"--config={CONFIGS / 'states.yaml'}"
    assert (
        main(["fit", config, f"--data.real={tmp_path / 'store'}", f"--run_dir={run}", *small, *length]) == 0
    )
    summary = json.loads((run / "summary.json").read_text())
    assert summary["normalized_score"] == pytest.approx(100 * summary["return_mean"] / 50)
    agent = load_checkpoint(str(run / "agent" / "final.ckpt"))
    assert agent.env == {
        "observation": "states",
        "action_repeat": 1,
        **SHORT,
        "reference_scores": [0.0, 50.0],
    }


def test_an_online_agent_in_gymnasium(tmp_path: Path) -> None:
    env = ["task=gymnasium:Hopper-v5", "action_repeat=1", "env_kwargs={max_episode_steps: 12}"]
    data = ["start_steps=32", "batch_size=16", *(f"env.{setting}" for setting in env)]
    argv = ["fit", f"--config={CONFIGS / 'sac_state.yaml'}", f"--run_dir={tmp_path}"]
    argv += [f"--data.init_args.{setting}" for setting in data]
    argv += ["--model.init_args.hidden_dim=8", "--trainer.max_steps=16", "--trainer.accelerator=cpu"]
    argv += ["--trainer.precision=32-true", "--keep_every=0", "--evaluation.episodes=2"]
    assert main(argv) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    low, high = -20.272305, 3234.3  # D4RL's, by the environment's name
    assert summary["normalized_score"] == pytest.approx(100 * (summary["return_mean"] - low) / (high - low))


def test_a_random_policy_is_collected_there(tmp_path: Path) -> None:
    path = tmp_path / "store"
    assert (
        main(
            [
                "collect-states",
                "--task=gymnasium:Hopper-v5",
                "--policy=random",
                f"--path={path}",
                "--episodes=3",
            ]
        )
        == 0
    )
    data = load_states(path)
    assert data.num_episodes == 3
    assert data.terminal.sum() == 3
    assert data.env == {"observation": "states", "task": "gymnasium:Hopper-v5", "action_repeat": 1}
