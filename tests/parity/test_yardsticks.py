"""The benchmarks' plain implementations compute what the published code computed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_synther.agents.schedules import parse_schedule
from lightning_synther.diffusion.preconditioning import Preconditioned
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.networks.denoiser import ResidualMLP
from tests.parity.conftest import Golden

YARDSTICKS = Path(__file__).parents[2] / "benchmarks" / "yardsticks"


@pytest.fixture(scope="module")
def drqv2() -> Any:
    return load("drqv2")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"yardstick_{name}", YARDSTICKS / f"{name}.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(
    agent: Any, file: Golden, modules: list[str], update: Callable[[int, float], dict[str, float]]
) -> None:
    for name in modules:
        getattr(agent, name).load_state_dict(file.state(f"init.{name}."))
    schedule = parse_schedule(file.hp["stddev_schedule"])
    for u, step in enumerate(file["in.steps"]):
        metrics = update(u, schedule(int(step)))
        for key, values in file.state("out.metric.").items():
            tolerance = (1e-5, 1e-5) if u == 0 else (1e-4, 2e-5)
            np.testing.assert_allclose(metrics[key], values[u], *tolerance, err_msg=key)


def test_drqv2_bc(drqv2: Any, golden: Callable[[str], Golden]) -> None:
    file = golden("a5_drqv2_bc_update")
    hp = file.hp
    agent = drqv2.DrQV2BC(
        hp["action_dim"], feature_dim=hp["feature_dim"], hidden_dim=hp["hidden_dim"], lr=hp["lr"]
    )
    keys = ("obs", "action", "reward", "next_obs", "discount")
    batch = [file.tensor(f"in.{key}") for key in keys]
    batch[2] = batch[2].float()
    shifts = torch.stack([file.tensor("rand.shift_obs"), file.tensor("rand.shift_next_obs")], dim=1)
    noise = torch.stack([file.tensor("rand.eps_next_action"), file.tensor("rand.eps_actor")], dim=1)
    modules = ["encoder", "actor", "critic", "critic_target"]
    check(agent, file, modules, lambda u, std: agent.update(batch, std, shifts[u], noise[u]))


def test_bc(drqv2: Any, golden: Callable[[str], Golden]) -> None:
    file = golden("a7_bc_update")
    hp = file.hp
    agent = drqv2.BC(
        hp["action_dim"], feature_dim=hp["feature_dim"], hidden_dim=hp["hidden_dim"], lr=hp["lr"]
    )
    obs, action, reward = (file.tensor(f"in.{key}") for key in ("obs", "action", "reward"))
    shifts, noise = file.tensor("rand.shift_obs"), file.tensor("rand.eps_actor")
    check(
        agent,
        file,
        ["encoder", "actor"],
        lambda u, std: agent.update(obs, action, reward.float(), std, shifts[u], noise[u]),
    )


def test_the_plain_sampler_and_the_package_s_equal_the_golden_sampler() -> None:
    """`test_diffusion.py` proves ours; here the yardsticks, on the same draws."""
    elucidated = load("elucidated")
    torch.manual_seed(0)
    network = ResidualMLP(5, width=32, num_layers=2)
    sampler, rows = DiffusionSampler("stochastic_heun", 16), 9
    torch.manual_seed(1)
    draws = [torch.randn(rows, 5) for _ in range(17)]
    with torch.no_grad():
        ours = sampler(Preconditioned(network), draws[0], lambda step: draws[step + 1])
    arms = [elucidated.plain(network, 5)]
    package = elucidated.published(network, 5)
    for arm in [*arms, *([package] if package else [])]:
        torch.manual_seed(1)
        theirs = arm(rows, 16)
        if arm is package:
            theirs = theirs * 2 - 1  # it takes images for the mean of -1 and 1, and clamps them
            torch.testing.assert_close(theirs, ours.clamp(-1, 1), rtol=1e-3, atol=1e-3)
        else:
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
