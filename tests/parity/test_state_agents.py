"""Whole updates of the agents on states against the published code: metrics, parameters, learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_synther.agents import EDAC, IQL, TD3BC, Agent
from lightning_synther.agents.edac_module import EDACNoise
from lightning_synther.networks.ensemble import stack_members
from lightning_synther.transition import Transition
from tests.parity.conftest import Golden

Load = Callable[[str], Golden]
State = dict[str, Tensor]


def sizes(file: Golden) -> dict[str, int]:
    """Sizes of the networks, by the names of `Agent`'s arguments."""
    names = {"observation_dim": "state_dim", "action_dim": "action_dim", "hidden_dim": "hidden_dim"}
    return {ours: file.hp[theirs] for ours, theirs in names.items()}


def chosen(file: Golden, *names: str) -> dict[str, object]:
    """Hyperparameters that have the published names."""
    return {name: file.hp[name] for name in names}


def read_batch(file: Golden, call: int, discount: str = "discount") -> Transition:
    state, action, reward, following, done = (
        file.tensor(f"in.{name}")[call] for name in ("state", "action", "reward", "next_state", "done")
    )
    return Transition(state, action, reward, following, (1 - done) * file.hp[discount])


def renamed(state: State, names: dict[str, str]) -> State:
    """``state`` with each key that starts with one of ``names`` given the new start."""
    return {
        names[old] + key.removeprefix(old): value
        for key, value in state.items()
        for old in names
        if key.startswith(old)
    }


def members(file: Golden, prefixes: Iterable[str]) -> State:
    """State of a `Critic` from the states of its members, under keys 0, 2, ... after ``prefixes``."""
    stacked = stack_members([file.state(prefix) for prefix in prefixes])
    return {f"q.{key}": value for key, value in stacked.items()}


def check_state(module: nn.Module, expected: State, lr: float) -> None:
    actual = module.state_dict()
    assert set(actual) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=0, atol=max(0.002 * lr, 1e-7), err_msg=key)


def check_metrics(metrics: State, file: Golden, call: int, names: dict[str, str]) -> None:
    """Compare metrics, ``names`` from the published to ours; one that is NaN there must be missing here."""
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if call == 0 else {"rtol": 1e-4, "atol": 2e-5}
    for theirs, ours in names.items():
        expected = float(file[f"out.metric.{theirs}"][call])
        if np.isnan(expected):
            assert ours not in metrics
        else:
            np.testing.assert_allclose(float(metrics[ours]), expected, **tolerance, err_msg=theirs)


def load(agent: Agent, states: dict[str, State]) -> None:
    for name, state in states.items():
        agent.get_submodule(name).load_state_dict(state)


def td3_bc_states(file: Golden, family: str) -> dict[str, State]:
    pairs = {"critic": "critic_{}.net.", "critic_target": "critic_{}_target.net."}
    critics = {n: members(file, (f"{family}.{p.format(i)}" for i in (1, 2))) for n, p in pairs.items()}
    actors = {n: renamed(file.state(f"{family}.{n}."), {"net": "policy"}) for n in ("actor", "actor_target")}
    return critics | actors


def test_td3_bc_update(golden: Load) -> None:
    file = golden("c_td3_bc_update")
    names = ("tau", "policy_noise", "noise_clip", "policy_freq", "alpha", "max_action", "lr")
    agent = TD3BC(**sizes(file), num_layers=file.hp["n_hidden"], **chosen(file, *names))
    load(agent, td3_bc_states(file, "init"))
    metrics = ("critic_loss", "actor_loss")
    for call in range(file.hp["calls"]):
        found = agent.update(read_batch(file, call), file.tensor("rand.target_noise")[call])
        check_metrics(found, file, call, {name: name for name in metrics})
        for name, state in td3_bc_states(file, f"out.param{call + 1}").items():
            check_state(agent.get_submodule(name), state, file.hp["lr"])


def iql_states(file: Golden, family: str) -> dict[str, State]:
    pairs = {"critic": "qf", "critic_target": "q_target"}
    critics = {n: members(file, (f"{family}.{p}.q{i}.net." for i in (1, 2))) for n, p in pairs.items()}
    actor = renamed(file.state(f"{family}.actor."), {"net.net": "policy", "log_std": "log_std"})
    return critics | {"actor": actor, "value": renamed(file.state(f"{family}.vf."), {"v.net": "v"})}


@pytest.mark.parametrize("policy", ["gaussian", "deterministic"])
def test_iql_update(golden: Load, policy: str) -> None:
    file = golden(f"c_iql_{policy}_update")
    names = ("tau", "iql_tau", "beta", "max_steps", "exp_adv_max", "lr")
    agent = IQL(
        **sizes(file),
        num_layers=file.hp["n_hidden"],
        iql_deterministic=file.hp["policy"] == "deterministic",
        **chosen(file, *names),
    )
    if file.hp["policy"] == "gaussian":
        assert agent.actor.log_std_bounds == (file.hp["log_std_min"], file.hp["log_std_max"])
    load(agent, iql_states(file, "init"))
    metrics = {"actor_loss": "actor_loss", "q_loss": "critic_loss", "value_loss": "value_loss"}
    assert agent.actor_lr == pytest.approx(float(file["init.actor_lr"]), rel=1e-12)
    for call in range(file.hp["calls"]):
        found = agent.update(read_batch(file, call))
        check_metrics(found, file, call, metrics)
        assert agent.actor_lr == pytest.approx(float(file[f"out.param{call + 1}.actor_lr"]), rel=1e-12)
        for name, state in iql_states(file, f"out.param{call + 1}").items():
            check_state(agent.get_submodule(name), state, file.hp["lr"])


def gaussian_actor(state: State, hidden: list[str], mean: str, log_std: str) -> State:
    """State of a `GaussianActor` from one with ``hidden`` layers and two heads."""
    parts = ("weight", "bias")
    policy = {f"policy.{2 * i}.{p}": state[f"{key}.{p}"] for i, key in enumerate(hidden) for p in parts}
    heads = {p: torch.cat([state[f"{mean}.{p}"], state[f"{log_std}.{p}"]]) for p in parts}
    return policy | {f"policy.{2 * len(hidden)}.{p}": value for p, value in heads.items()}


def edac_states(file: Golden, family: str) -> dict[str, State]:
    actor = file.state(f"{family}.actor.")
    hidden = sorted({key.rpartition(".")[0] for key in actor if key.startswith("trunk")})
    states = {"actor": gaussian_actor(actor, hidden, "mu", "log_sigma")}
    for ours, theirs in {"critic": "critic", "critic_target": "target_critic"}.items():
        critic = renamed(file.state(f"{family}.{theirs}."), {"critic": "q"})
        states[ours] = {k: v.squeeze(1) if "bias" in k else v.transpose(1, 2) for k, v in critic.items()}
    return states


def test_edac_update(golden: Load) -> None:
    file = golden("c_edac_update")
    agent = EDAC(
        **sizes(file),
        **chosen(file, "num_critics", "max_action", "tau", "eta", "target_entropy"),
        lr=file.hp["lr_critic"],
        actor_lr=file.hp["lr_actor"],
        temperature_lr=file.hp["lr_alpha"],
        log_every_n_updates=1,
    )
    load(agent, edac_states(file, "init"))
    agent.log_temperature.data.copy_(file.tensor("init.log_alpha").squeeze())
    names = {"actor_loss": "actor_loss", "critic_loss": "critic_loss", "alpha": "temperature"}
    names |= {"alpha_loss": "temperature_loss", "batch_entropy": "actor_ent"}
    names |= {name: name for name in ("q_policy_std", "q_random_std")}
    keys = ("eps_alpha_action", "eps_actor", "eps_next_action", "random_action_uniform")
    noise = [file.tensor(f"rand.{key}") for key in keys]
    for call in range(file.hp["calls"]):
        *normal, uniform = (value[call] for value in noise)
        found = agent.update(read_batch(file, call, "gamma"), EDACNoise(*normal, 2 * uniform - 1))
        check_metrics(found, file, call, names)
        for name, state in edac_states(file, f"out.param{call + 1}").items():
            check_state(agent.get_submodule(name), state, file.hp["lr_actor"])
        log_alpha = file.tensor(f"out.param{call + 1}.log_alpha").squeeze()
        torch.testing.assert_close(agent.log_temperature.data, log_alpha, rtol=0, atol=1e-6)
