"""Evaluation as a validation loop, in a real environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from lightning_synther.agents import BC
from lightning_synther.envs.control import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.episodes import EpisodeSeeds
from tests.agents.tiny import trainer

ENV = EnvConfig("cartpole_balance", observation="states", time_limit=0.1).to_dict()


def evaluate(agent: BC, seeds: list[int], **options: Any) -> None:
    agent.eval_workers = 0
    trainer(1, **options).test(agent, DataLoader(EpisodeSeeds(seeds), batch_size=2), verbose=False)


def make_agent(**settings: Any) -> BC:
    torch.manual_seed(0)
    return BC(observation="states", observation_dim=5, action_dim=1, hidden_dim=8, **settings)


def test_each_seed_counts_once_and_results_do_not_depend_on_batches() -> None:
    agent = make_agent(env=ENV)
    evaluate(agent, [3, 4, 5, 3])
    results = dict(agent.eval_results)
    assert results["episodes"] == len(results["returns"]) == 3
    assert results["episode_length"] == 5  # 0.1 s of 0.01 s steps, two to an action
    assert results["return_mean"] == pytest.approx(sum(results["returns"]) / 3)
    evaluate(agent, [5, 4])
    assert agent.eval_results["returns"] == pytest.approx(results["returns"][:0:-1])


def test_tensorboard_has_scores_returns_and_a_video(tmp_path: Path) -> None:
    agent = make_agent(env=ENV)
    agent.num_updates = 7
    logger = TensorBoardLogger(tmp_path)
    evaluate(agent, [0, 1], logger=logger)
    logger.save()
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    mean = events.Scalars("test/return_mean")[0]
    assert (mean.step, mean.value) == (7, pytest.approx(agent.eval_results["return_mean"]))
    assert {"test/normalized_score", "test/return_stderr", "test/episode_length"} <= set(
        events.Tags()["scalars"]
    )
    assert events.Images("test/video")[0].encoded_image_string[:3] == b"GIF"
    assert events.Images("test/return_per_episode")[0].encoded_image_string[1:4] == b"PNG"
    assert "test/returns" in events.Tags()["histograms"]


def test_agent_without_environment_says_so() -> None:
    with pytest.raises(ConfigError, match="construct it with env"):
        evaluate(make_agent(), [0])
