"""The benchmark's plain Soft Actor-Critic computes what the package's agent computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from lightning_synther.agents import SAC
from lightning_synther.networks.heads import critic_to_reference
from lightning_synther.transition import Transition

PATH = Path(__file__).parents[2] / "benchmarks" / "yardsticks" / "sac.py"
S, A, B = 5, 2, 32


def members(critic: Any) -> list[dict[str, torch.Tensor]]:
    state = critic_to_reference(critic.state_dict())
    return [
        {key.partition(".")[2]: value.clone() for key, value in state.items() if key.startswith(f"Q{i}.")}
        for i in (1, 2)
    ]


def test_four_updates_are_the_same() -> None:
    spec = importlib.util.spec_from_file_location("yardstick_sac", PATH)
    assert spec is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    torch.manual_seed(0)
    agent = SAC(observation_dim=S, action_dim=A, hidden_dim=16)
    plain = module.SAC(S, A, 16)
    plain.actor.load_state_dict(agent.actor.policy.state_dict())
    for nets in (plain.critics, plain.targets):
        for net, state in zip(nets, members(agent.critic), strict=True):
            net.load_state_dict(state)
    for _ in range(4):
        discount = torch.full((B, 1), 0.9)
        batch = Transition(
            torch.randn(B, S), torch.rand(B, A), torch.randn(B, 1), torch.randn(B, S), discount
        )
        noise = torch.randn(2, B, A)
        ours, theirs = agent.update(batch, noise), plain.update(tuple(batch), noise)
        for key, value in theirs.items():
            torch.testing.assert_close(
                ours[key].item(), value, rtol=1e-4, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}"
            )
    torch.testing.assert_close(agent.log_temperature, plain.log_temperature)
    for nets, critic in ((plain.critics, agent.critic), (plain.targets, agent.critic_target)):
        for net, state in zip(nets, members(critic), strict=True):
            torch.testing.assert_close(dict(net.state_dict()), state, rtol=1e-3, atol=1e-4)
