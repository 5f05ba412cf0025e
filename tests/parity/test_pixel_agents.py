"""Networks, noise, schedules, and whole updates of BC and DrQ-v2, against the published code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_synther.agents import BC, CQL, Agent, DrQV2
from lightning_synther.agents.cql_module import CQLNoise
from lightning_synther.agents.schedules import parse_schedule
from lightning_synther.networks.augmentation import random_shift
from lightning_synther.networks.distributions import TruncatedNormal
from lightning_synther.networks.heads import critic_from_reference, critic_to_reference
from lightning_synther.transition import Transition
from tests.parity.conftest import Golden

Load = Callable[[str], Golden]


def close(actual: object, expected: object, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol)


@pytest.mark.parametrize("case", ["small", "full", "grid"])
def test_random_shift_is_the_crop_that_grid_sample_approximates(golden: Load, case: str) -> None:
    file = golden("a1_random_shifts")
    x, shifts = file.tensor(f"in.{case}.x"), file.tensor(f"rand.{case}.shift")
    y = random_shift(x, shifts, int(file[f"in.{case}.pad"]))
    close(y, file[f"out.{case}.y"], rtol=0, atol=4e-3)
    close(y, np.rint(file[f"out.{case}.y"]), rtol=0, atol=0)


def make_agent(cls: type[Agent], file: Golden, **settings: object) -> Agent:
    hp, size = file.hp, file.hp["obs_shape"][-1]
    if "stddev_schedule" in hp:
        settings |= {
            "lr": hp["lr"],
            "stddev_schedule": hp["stddev_schedule"],
            "stddev_clip": hp["stddev_clip"],
            "schedule_steps_per_update": 1,  # the test sets the step itself
        }
    agent = cls(
        action_dim=hp["action_dim"],
        feature_dim=hp["feature_dim"],
        hidden_dim=hp["hidden_dim"],
        image_size=size,
        frame_stack=hp["obs_shape"][0] // 3,
        **settings,
    )
    agent.encoder.load_state_dict(file.state("init.encoder."))
    agent.actor.load_state_dict(file.state("init.actor."))
    if hasattr(agent, "critic"):
        agent.critic.load_state_dict(critic_from_reference(file.state("init.critic.")))
    return agent


def test_networks(golden: Load) -> None:
    file = golden("a2_networks")
    agent = make_agent(DrQV2, file)
    with torch.no_grad():
        features = agent.encoder(file.tensor("in.obs"))
        close(features.flatten(1), file["out.features"])
        mean = agent.actor(features)
        close(mean, file["out.actor_mean"])
        q = agent.critic(features, file.tensor("in.action"))
    close(q[0], file["out.q1"])
    close(q[1], file["out.q2"])
    close(agent.policy(file.tensor("in.obs")), file["out.actor_mean"])


def test_truncated_normal(golden: Load) -> None:
    file = golden("a3_truncated_normal")
    for i, std in enumerate(file["in.std"]):
        for name, clip in file.hp["clips"].items():
            key = f"s{i}.clip_{name}"
            loc = file.tensor("in.loc").requires_grad_()
            distribution = TruncatedNormal(loc, float(std))
            sample = distribution.sample(file.tensor(f"rand.{key}.eps"), clip)
            (sample * file.tensor("in.grad_weight")).sum().backward()
            close(sample.detach(), file[f"out.{key}.sample"], rtol=0, atol=1e-6)
            close(loc.grad, file[f"out.{key}.grad_loc"])
            close(distribution.log_prob(sample).detach(), file[f"out.{key}.log_prob"])
            close(distribution.entropy().detach(), file[f"out.{key}.entropy"])
            close(distribution.mean.detach(), file[f"out.{key}.mean"])


def test_stddev_schedules(golden: Load) -> None:
    file = golden("a4_stddev_schedule")
    for text, values in zip(file["in.schedules"], file["out.value"], strict=True):
        schedule = parse_schedule(str(text))
        close([schedule(int(step)) for step in file["in.steps"]], values, rtol=0, atol=1e-12)


def reference_state(agent: Agent, module: str) -> dict[str, Tensor]:
    state = agent.get_submodule(module).state_dict()
    state = {key: value.clone() for key, value in state.items()}
    return critic_to_reference(state) if module.startswith("critic") else state


def capture_gradients(agent: Agent, found: dict[str, Tensor]) -> None:
    """Record every gradient, in the published layout, at its optimizer's first step."""
    agent.configure_optimizers()

    def record(*_: object) -> None:
        for module in ("encoder", "actor", "critic"):
            if not hasattr(agent, module):
                continue
            network = agent.get_submodule(module)
            gradients = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
            if module == "critic":
                gradients = critic_to_reference(gradients)
            for key, value in gradients.items():
                found.setdefault(f"{module}.{key}", value.clone())

    for optimizer in agent._optimizers_by_name.values():
        optimizer.register_step_pre_hook(record)


def check_parameters(agent: Agent, file: Golden, family: str, updates: int, share: float) -> None:
    off, total = 0, 0
    for module in ("encoder", "actor", "critic", "critic_target"):
        expected = file.state(f"{family}.{module}.")
        if not expected:
            continue
        actual = reference_state(agent, module)
        for key, value in expected.items():
            error = (actual[key] - value).abs()
            assert error.max() <= 2.05 * file.hp["lr"] * updates, f"{module}.{key}"
            off += int((error > 2e-6).sum())
            total += error.numel()
    assert total > 0
    assert off <= (1 - share) * total


def check_gradients(found: dict[str, Tensor], file: Golden) -> None:
    for key, expected in file.state("out.grad.").items():
        close(found[key], expected, rtol=1e-3, atol=1e-5)
    for key, expected in file.state("out.grad_l2.").items():
        close(found[key].double().norm(), expected, rtol=1e-3, atol=1e-5)


def run_updates(agent: Agent, file: Golden, draws: Callable[[int], object]) -> None:
    pad, found = file.hp["augmentation_pad"], {}
    capture_gradients(agent, found)
    for u, step in enumerate(file["in.steps"]):
        observation = random_shift(file.tensor("in.obs"), file.tensor("rand.shift_obs")[u], pad)
        following = file.tensor("in.next_obs")
        if "rand.shift_next_obs" in file:
            following = random_shift(following, file.tensor("rand.shift_next_obs")[u], pad)
        reward = file.tensor("in.reward").float()
        batch = Transition(
            observation, file.tensor("in.action"), reward, following, file.tensor("in.discount")
        )
        agent.num_updates = int(step)
        metrics = agent.update(batch, draws(u))
        assert agent.num_updates == step + 1
        for key, values in file.state("out.metric.").items():
            close(metrics[key], values[u], *((1e-5, 1e-5) if u == 0 else (1e-4, 2e-5)))
        if u == 0:
            check_gradients(found, file)
            check_parameters(agent, file, "out.param", 1, share=0.9999)
    check_parameters(agent, file, "out.param_last", len(file["in.steps"]), share=0.995)


@pytest.mark.parametrize("case", ["bc", "nobc", "online"])
def test_drqv2_update(golden: Load, case: str) -> None:
    file = golden(f"a5_drqv2_{case}_update")
    agent = make_agent(
        DrQV2,
        file,
        tau=file.hp["critic_target_tau"],
        bc_weight=file.hp["bc_weight"] if file.hp["offline"] else None,
        use_bc=file.hp.get("use_bc", True),
    )
    agent.critic_target.load_state_dict(critic_from_reference(file.state("init.critic_target.")))
    noise = torch.stack([file.tensor("rand.eps_next_action"), file.tensor("rand.eps_actor")], dim=1)
    run_updates(agent, file, lambda u: noise[u])


@pytest.mark.parametrize("lagrange", [0, 1])
@pytest.mark.parametrize("importance", [0, 1])
def test_cql_update(golden: Load, importance: int, lagrange: int) -> None:
    file = golden(f"a6_cql_is{importance}_lag{lagrange}_update")
    names = ("cql_importance_sample", "temp", "min_q_weight", "num_random", "with_lagrange")
    settings = {name: file.hp[name] for name in (*names, "lagrange_thresh")}
    agent = make_agent(CQL, file, tau=file.hp["critic_target_tau"], **settings)
    agent.critic_target.load_state_dict(critic_from_reference(file.state("init.critic_target.")))
    multiplier = agent.conservatism.log_multiplier
    assert (multiplier is not None) == ("init.log_alpha_prime" in file)
    if multiplier is not None:
        multiplier.data.copy_(file.tensor("init.log_alpha_prime").squeeze())
    keys = ("eps_next_action", "cql_random_action", "eps_cql_next", "eps_cql_curr", "eps_actor")
    noise = [file.tensor(f"rand.{key}") for key in keys]

    def draws(u: int) -> tuple[CQLNoise, Tensor]:
        return CQLNoise(*(value[u] for value in noise[:4])), noise[4][u]

    run_updates(agent, file, draws)
    if multiplier is not None:
        close(multiplier.detach(), file["out.param_last.log_alpha_prime"].squeeze(), rtol=0, atol=2e-6)


def test_bc_update(golden: Load) -> None:
    file = golden("a7_bc_update")
    noise = file.tensor("rand.eps_actor")
    run_updates(make_agent(BC, file), file, lambda u: noise[u])
