"""TD3+BC: the smoothed target action by hand, and an actor that is updated less often than it is logged."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_synther.agents import TD3BC
from lightning_synther.agents.td3_bc import smoothed_action
from tests.agents.test_algorithms import build
from tests.agents.tiny import loader, make_batch, trainer


def test_smoothed_action_by_hand() -> None:
    action = torch.tensor([[0.0, 1.9, -1.9]])
    noise = torch.tensor([[1.0, 9.0, -1.5]])
    found = smoothed_action(action, noise, policy_noise=0.2, noise_clip=0.25, max_action=2.0)
    torch.testing.assert_close(found, torch.tensor([[0.2, 2.0, -2.0]]))


def test_actor_and_targets_move_every_policy_freq_updates() -> None:
    agent = build(TD3BC, "states", "", policy_freq=3)
    moving = ("actor", "actor_target", "critic", "critic_target")

    def weights() -> dict[str, torch.Tensor]:
        return {name: next(agent.get_submodule(name).parameters()).clone() for name in moving}

    states = [weights()]
    for i in range(6):
        agent.update(make_batch(i, shape=(5,)))
        states.append(weights())
    for name in moving:
        moved = [not torch.equal(a[name], b[name]) for a, b in itertools.pairwise(states)]
        assert moved == ([True] * 6 if name == "critic" else [False, False, True] * 2), name


def test_the_last_actor_loss_is_logged_with_an_update_that_has_none(tmp_path: Path) -> None:
    agent = build(TD3BC, "states", "", policy_freq=2, log_every_n_updates=3)
    logger = CSVLogger(tmp_path)
    trainer(3, logger=logger).fit(agent, loader(agent, shape=(5,)))
    logger.save()
    assert "train/actor_loss" in (Path(logger.log_dir) / "metrics.csv").read_text()


def test_max_action_bounds_the_policy() -> None:
    agent = build(TD3BC, "states", "", max_action=3.0)
    observation = 100 * make_batch(0, shape=(5,)).observation
    assert 1 < agent.policy(observation).abs().max() <= 3
