"""Whole updates of the agents on states against the published code: metrics, parameters, learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_synther.agents import CQLSAC, EDAC, IQL, REDQ, TD3BC, Agent
from lightning_synther.agents.cql_module import CQLNoise
from lightning_synther.agents.edac_module import EDACNoise
from lightning_synther.agents.redq_module import REDQNoise
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
    """Compare parameters within 0.2 % of a step, or a few float32 roundings of a weight near 1."""
    actual, atol = module.state_dict(), max(0.002 * lr, 5e-7)
    assert set(actual) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=0, atol=atol, err_msg=key)


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


def redq_states(file: Golden, family: str) -> dict[str, State]:
    num_layers = len(file.hp["hidden_sizes"])
    hidden = [f"hidden_layers.{i}" for i in range(num_layers)]
    actor = gaussian_actor(file.state(f"{family}.policy_net."), hidden, "last_fc_layer", "last_fc_log_std")
    states = {"actor": actor}
    numbers = {f"{key}.": f"q.{2 * i}." for i, key in enumerate([*hidden, "last_fc_layer"])}
    for ours, theirs in {"critic": "q_net_list", "critic_target": "q_target_net_list"}.items():
        critics = [renamed(file.state(f"{family}.{theirs}.{j}."), numbers) for j in range(file.hp["num_Q"])]
        states[ours] = stack_members(critics)
    return states


def redq_agent(file: Golden) -> REDQ:
    hp = file.hp
    agent = REDQ(
        observation_dim=hp["obs_dim"],
        action_dim=hp["act_dim"],
        hidden_dim=hp["hidden_sizes"][0],
        num_layers=len(hp["hidden_sizes"]),
        tau=1 - hp["polyak"],
        num_critics=hp["num_Q"],
        learn_temperature=hp["auto_alpha"],
        target_entropy=hp["target_entropy_value"],
        max_action=hp["act_limit"],
        **chosen(file, "lr", "alpha", "num_min", "q_target_mode", "utd_ratio"),
        policy_update_delay=hp["policy_update_delay"],
    )
    assert agent.log_std_bounds == (hp["log_std_min"], hp["log_std_max"])
    assert agent.log_prob_epsilon == hp["action_bound_epsilon"]
    load(agent, redq_states(file, "init"))
    assert float(agent.temperature) == pytest.approx(float(file["init.alpha"]))
    if hp["auto_alpha"]:
        agent.log_temperature.data.copy_(file.tensor("init.log_alpha").squeeze())
    return agent


def redq_batch(file: Golden, update: int) -> Transition:
    """Real transitions, then synthetic ones where the case has them."""
    parts = []
    for kind, buffer in (("real", "in.buffer."), ("synthetic", "in.synthetic_buffer.")):
        if f"rand.{kind}_indices" in file:
            index = file.tensor(f"rand.{kind}_indices")[update]
            parts.append({key: value[index] for key, value in file.state(buffer).items()})
    rows = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    discount = file.hp["gamma"] * (1 - rows["done"])
    return Transition(rows["obs1"], rows["acts"], rows["rews"][:, None], rows["obs2"], discount[:, None])


@pytest.mark.parametrize(
    "case",
    [
        "d2_redq_update",
        "d2_redq_update_delay1",
        "d2_redq_update_ave",
        "d2_redq_update_fixed_alpha",
        "d3_synther_redq_update",
    ],
)
def test_redq_update(golden: Load, case: str) -> None:
    file = golden(case)
    agent = redq_agent(file)
    noise, actor_noise = file.tensor("rand.eps_next_action"), iter(file.tensor("rand.eps_policy"))
    for call in range(file.hp["calls"]):
        for update in range(call * file.hp["utd_ratio"], (call + 1) * file.hp["utd_ratio"]):
            own = next(actor_noise) if agent.actor_is_due else torch.zeros_like(noise[update])
            members = file.tensor("rand.ensemble_indices")[update]
            metrics = agent.update(redq_batch(file, update), REDQNoise(noise[update], own, members))
        found = {"LossPi": metrics["actor_loss"], "Alpha": metrics["temperature"]}
        found["LossQ1"] = metrics["critic_loss"] / file.hp["num_Q"]
        if file.hp["auto_alpha"]:
            found["LossAlpha"] = metrics["temperature_loss"]
        check_metrics(found, file, call, {name: name for name in found})
        log_prob = file["out.metric.LogPi"][call]
        np.testing.assert_allclose(float(metrics["actor_ent"]), -log_prob.mean(), rtol=1e-4)
        for name, state in redq_states(file, f"out.param{call + 1}").items():
            check_state(agent.get_submodule(name), state, file.hp["lr"])
        if file.hp["auto_alpha"]:
            log_alpha = file.tensor(f"out.param{call + 1}.log_alpha").squeeze()
            torch.testing.assert_close(agent.log_temperature.data, log_alpha, rtol=0, atol=1e-6)
    assert next(actor_noise, None) is None, "as many updates of the actor as published"


def cql_states(file: Golden, family: str) -> dict[str, State]:
    pairs = {"critic": "critic_{}.network.", "critic_target": "target_critic_{}.network."}
    critics = {n: members(file, (f"{family}.{p.format(i)}" for i in (1, 2))) for n, p in pairs.items()}
    names = {f"log_std_{name}.constant": f"log_std_{name}" for name in ("multiplier", "offset")}
    actor = renamed(file.state(f"{family}.actor."), {"base_network": "policy", **names})
    return critics | {"actor": actor}


def cql_agent(file: Golden) -> CQLSAC:
    hp = file.hp
    names = ["alpha_multiplier", "backup_entropy", "bc_steps", "target_update_period", "cql_n_actions"]
    names += ["cql_importance_sample", "cql_lagrange", "cql_target_action_gap", "cql_temp"]
    names += ["cql_min_q_weight", "cql_max_target_backup", "target_entropy", "max_action"]
    agent = CQLSAC(
        **sizes(file),
        **chosen(file, *names),
        num_layers=len(file.state("init.critic_1.network.")) // 2 - 1,
        lr=hp["qf_lr"],
        actor_lr=hp["policy_lr"],
        tau=hp["soft_target_update_rate"],
        learn_temperature=hp["use_automatic_entropy_tuning"],
        cql_clip_diff_min=float(hp["cql_clip_diff_min"]),
        cql_clip_diff_max=float(hp["cql_clip_diff_max"]),
    )
    assert agent.log_std_bounds == (hp["log_std_min"], hp["log_std_max"])
    load(agent, cql_states(file, "init"))
    for parameter, key in cql_scalars(agent):
        parameter.data.copy_(file.tensor(f"init.{key}.constant"))
    return agent


def cql_scalars(agent: CQLSAC) -> list[tuple[nn.Parameter, str]]:
    """Learned temperature and multiplier, with their published names."""
    learned = [(agent.log_temperature, "log_alpha")] if agent.log_temperature.requires_grad else []
    multiplier = agent.conservatism.log_multiplier
    return learned + ([(multiplier, "log_alpha_prime")] if multiplier is not None else [])


def cql_metrics(file: Golden) -> dict[str, str]:
    names = {"policy_loss": "actor_loss", "log_pi": "actor_logprob", "alpha": "temperature"}
    names |= {"average_target_q": "critic_next_q"}
    if file.hp["use_automatic_entropy_tuning"]:
        names["alpha_loss"] = "temperature_loss"
    if file.hp["cql_lagrange"]:
        names |= {"alpha_prime": "cql_multiplier", "alpha_prime_loss": "cql_multiplier_loss"}
    for k in (1, 2):
        names |= {f"average_qf{k}": f"critic_q{k}", f"qf{k}_loss": f"critic_q{k}_td_loss"}
        names |= {f"cql_min_qf{k}_loss": f"cql_critic_q{k}_loss", f"cql_qf{k}_diff": f"cql_critic_q{k}_gap"}
        names |= {f"cql_std_q{k}": f"cql_critic_q{k}_std", f"cql_q{k}_rand": f"cql_critic_q{k}_rand"}
        names[f"cql_q{k}_current_actions"] = f"cql_critic_q{k}_curr_actions"
        names[f"cql_q{k}_next_actions"] = f"cql_critic_q{k}_next_actions"
    return names


@pytest.mark.parametrize("case", ["default", "lagrange", "noimp_maxbackup_entropy", "bc_clip"])
def test_cql_sac_update(golden: Load, case: str) -> None:
    file = golden(f"c_cql_{case}_update")
    agent = cql_agent(file)
    keys = ("eps_next_action", "cql_random_action", "eps_cql_next", "eps_cql_curr", "eps_policy_action")
    for call in range(file.hp["calls"]):
        target, *others, actor = (file.tensor(f"rand.{key}")[call] for key in keys)
        target = target[:, None] if target.dim() == 2 else target
        found = agent.update(read_batch(file, call), (CQLNoise(target, *others), actor))
        check_metrics(found, file, call, cql_metrics(file))
        for name, state in cql_states(file, f"out.param{call + 1}").items():
            check_state(agent.get_submodule(name), state, file.hp["policy_lr"])
        for parameter, key in cql_scalars(agent):
            expected = file.tensor(f"out.param{call + 1}.{key}.constant")
            torch.testing.assert_close(parameter.data, expected, rtol=0, atol=1e-6)
