"""The benchmarks' plain implementations compute what the published code computed."""

from __future__ import annotations

import importlib
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

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def drqv2(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("yardsticks.drqv2")


@pytest.fixture
def cql(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("yardsticks.cql")


@pytest.fixture
def elucidated(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("yardsticks.elucidated")


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


@pytest.mark.parametrize("lagrange", [0, 1])
@pytest.mark.parametrize("importance", [0, 1])
def test_cql(cql: Any, golden: Callable[[str], Golden], importance: int, lagrange: int) -> None:
    file = golden(f"a6_cql_is{importance}_lag{lagrange}_update")
    hp = file.hp
    agent = cql.CQL(
        hp["action_dim"],
        hp["min_q_weight"],
        hp["num_random"],
        hp["temp"],
        bool(importance),
        hp["lagrange_thresh"] if lagrange else None,
        feature_dim=hp["feature_dim"],
        hidden_dim=hp["hidden_dim"],
        lr=hp["lr"],
        tau=hp["critic_target_tau"],
        clip=hp["stddev_clip"],
    )
    if lagrange:
        agent.log_alpha_prime.data.copy_(file.tensor("init.log_alpha_prime"))
    keys = ("obs", "action", "reward", "next_obs", "discount")
    batch = [file.tensor(f"in.{key}") for key in keys]
    batch[2] = batch[2].float()

    def pair(*names: str) -> torch.Tensor:
        return torch.stack([file.tensor(f"rand.{name}") for name in names], dim=1)

    shifts, noise = pair("shift_obs", "shift_next_obs"), pair("eps_next_action", "eps_actor")
    many, uniform = pair("eps_cql_curr", "eps_cql_next"), file.tensor("rand.cql_random_action")
    check(
        agent,
        file,
        ["encoder", "actor", "critic", "critic_target"],
        lambda u, std: agent.update(batch, std, shifts[u], noise[u], uniform[u], many[u]),
    )


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


def test_the_plain_sampler_and_the_package_s_equal_the_golden_sampler(elucidated: Any) -> None:
    """`test_diffusion.py` proves ours; here the yardsticks, on the same draws."""
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
