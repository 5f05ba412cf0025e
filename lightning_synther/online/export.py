"""From a trained SAC agent to a behaviour policy file with its card."""

from __future__ import annotations

import json
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lightning_synther.agents.sac_module import SAC
from lightning_synther.envs.config import EnvConfig, check_episodes_end
from lightning_synther.envs.factory import make_env
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.encoders import read_checkpoint
from lightning_synther.online.policies import BehaviourPolicy, PolicySpec, load_policy, save_policy

CARD_SEEDS = range(1000, 1010)
PACKAGES = ("lightning-synther", "torch", "lightning", "dm-control", "mujoco", "numpy")


def export_agent(agent: SAC, path: Path, card: dict[str, Any]) -> dict[str, Any]:
    """Write the actor of ``agent`` to ``path`` (.safetensors) and a card beside it (.json), returned too.

    ``card`` says how the agent was trained. It is completed with the returns of ten sampled and ten
    deterministic episodes, played by the file as it will be used, and with package versions.
    """
    if agent.env is None or agent.hparams["observation"] != "states":
        raise ConfigError(
            "a behaviour policy comes from an agent on states that knows its environment (model.env)"
        )
    if path.suffix != ".safetensors":
        raise ConfigError(f"path is {path}: a behaviour policy is a .safetensors file")
    if agent.max_action != 1:
        raise ConfigError(
            f"a behaviour policy acts in [-1, 1], but the agent's max_action is {agent.max_action}"
        )
    if agent.hparams["residual"] or agent.hparams["normalize_states"]:
        raise ConfigError(
            "a behaviour policy file holds a plain perceptron on raw states, but the agent has "
            f"residual={agent.hparams['residual']} and normalize_states={agent.hparams['normalize_states']}: "
            "write it with export_program"
        )
    env = EnvConfig.from_dict(agent.env)
    linears = [layer for layer in agent.actor.policy if isinstance(layer, nn.Linear)]
    spec = PolicySpec(
        task=env.task,
        action_repeat=env.action_repeat,
        observation_dim=linears[0].in_features,
        action_dim=linears[-1].out_features // 2,
        layer_sizes=[linears[0].in_features, *(layer.out_features for layer in linears)],
        log_std_bounds=agent.actor.log_std_bounds,
    )
    layers = [(layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()) for layer in linears]
    partial = path.with_name(f".{path.stem}.partial.safetensors")  # nobody finds a policy without its card
    try:
        save_policy(partial, spec, layers)
        card = complete_card(card, load_policy(str(partial), env.task), env)
        partial.with_suffix(".json").write_text(card_text(card))
        partial.replace(path)
        partial.with_suffix(".json").replace(path.with_suffix(".json"))
    finally:
        for left in (partial, partial.with_suffix(".json")):
            left.unlink(missing_ok=True)
    return card


def card_text(card: dict[str, Any]) -> str:
    """A card as JSON with a line for each key: a learning curve is one line, not hundreds."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in card.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load_sac(checkpoint: Path) -> SAC:
    """The agent in a checkpoint of `SAC`; raises `DataError` for any other file."""
    name = read_checkpoint(checkpoint).get("class_path", "").rpartition(".")[2]
    if name not in ("", "SAC"):
        raise DataError(f"checkpoint {checkpoint} holds {name}: a behaviour policy is made of SAC's actor")
    return SAC.load_from_checkpoint(checkpoint, map_location="cpu")


def complete_card(card: dict[str, Any], policy: BehaviourPolicy, env: EnvConfig) -> dict[str, Any]:
    """``card`` with task, action repeat, returns and versions."""
    sampled = [play(policy, env, seed) for seed in CARD_SEEDS]
    deterministic = [play(policy, env, seed, deterministic=True) for seed in CARD_SEEDS]
    return {
        "task": env.task,
        "action_repeat": env.action_repeat,
        **card,
        "date": date.today().isoformat(),
        "return_mean": round(float(np.mean(sampled)), 2),
        "return_mean_deterministic": round(float(np.mean(deterministic)), 2),
        "episode_seeds": list(CARD_SEEDS),
        "returns": [round(value, 2) for value in sampled],
        "returns_deterministic": [round(value, 2) for value in deterministic],
        "versions": {package: version(package) for package in PACKAGES},
    }


def play(policy: BehaviourPolicy, config: EnvConfig, seed: int, deterministic: bool = False) -> float:
    """Return of one episode on states; environment and action noise are functions of ``seed``.

    Raises `ConfigError` where it may never end.
    """
    env = make_env(config, seed)
    check_episodes_end(config, env.max_steps)
    rng = np.random.default_rng(seed)
    state, total, last = env.reset(seed), 0.0, False
    while not last:
        step = env.step(policy.act(state[None], rng, deterministic)[0])
        state, last = step.observation, step.last
        total += float(step.reward)
    return total
