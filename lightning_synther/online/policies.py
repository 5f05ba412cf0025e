"""Behaviour policies that collect data: state in, action out, in numpy only.

Worker processes import this file, so it must not import torch. A policy file is safetensors with the plain
layers of a multilayer perceptron, ``layers.<i>.weight`` (out, in) and ``layers.<i>.bias`` (out,), and a
metadata entry ``policy`` that holds `PolicySpec` as JSON. A card (JSON) beside it says where it came from.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.factory import make_env
from lightning_synther.errors import ConfigError, DataError

Floats = NDArray[np.float32]
SHIPPED = Path(str(files("lightning_synther"))) / "assets" / "policies"


class BehaviourPolicy(Protocol):
    """What `collect` needs to know of a policy."""

    @property
    def task(self) -> str:
        """The task that it plays."""
        ...

    @property
    def action_repeat(self) -> int | None:
        """The action repeat that it was trained with; None if it does not matter."""
        ...

    def act(self, states: Floats, rng: np.random.Generator, deterministic: bool = False) -> Floats:
        """Actions (N, A) in [-1, 1] for states (N, S); row i depends on state i and on ``rng`` only."""
        ...


@dataclass(frozen=True)
class PolicySpec:
    """What a policy file says of itself; ``layer_sizes`` includes input and output."""

    task: str
    action_repeat: int
    observation_dim: int
    action_dim: int
    layer_sizes: list[int]
    log_std_bounds: tuple[float, float]
    kind: Literal["tanh_gaussian"] = "tanh_gaussian"


class RandomPolicy:
    """Uniform actions in [-1, 1], V-D4RL's ``random``."""

    action_repeat = None

    def __init__(self, task: str, action_dim: int) -> None:
        self.task = task
        self.action_dim = action_dim

    def act(self, states: Floats, rng: np.random.Generator, deterministic: bool = False) -> Floats:
        """Uniform actions (N, A); ``deterministic`` makes them zero, their mean."""
        shape = (len(states), self.action_dim)
        if deterministic:
            return np.zeros(shape, np.float32)
        return rng.uniform(-1.0, 1.0, shape).astype(np.float32)


class TanhGaussianPolicy:
    """ReLU perceptron to a Gaussian squashed by tanh: the actor of Soft Actor-Critic."""

    def __init__(self, spec: PolicySpec, layers: list[tuple[Floats, Floats]]) -> None:
        self.spec = spec
        self.task = spec.task
        self.action_repeat = spec.action_repeat
        self._layers = layers

    def act(self, states: Floats, rng: np.random.Generator, deterministic: bool = False) -> Floats:
        """Sampled actions (N, A), or tanh of the mean if ``deterministic``.

        Each row goes through on its own: BLAS rounds a row differently in batches of different size, and
        collected data must not depend on how many environments a worker steps together.
        """
        if states.shape[1:] != (self.spec.observation_dim,):
            raise ConfigError(
                f"policy for {self.task} takes states of {self.spec.observation_dim} numbers, got shape "
                f"{states.shape}: use an environment with observation='states'"
            )
        mean, log_std = np.split(np.stack([self._forward(state) for state in states]), 2, axis=1)
        if deterministic:
            return np.tanh(mean)
        low, high = self.spec.log_std_bounds
        std = np.exp(low + 0.5 * (high - low) * (1 + np.tanh(log_std)))
        return np.tanh(mean + std * rng.standard_normal(mean.shape, dtype=np.float32))

    def _forward(self, x: Floats) -> Floats:
        for weight, bias in self._layers[:-1]:
            x = np.maximum(weight @ x + bias, 0)
        weight, bias = self._layers[-1]
        return weight @ x + bias


def available_policies(task: str) -> list[str]:
    """Names that `load_policy` knows for ``task``."""
    return ["random", *sorted(path.stem for path in (SHIPPED / task).glob("*.safetensors"))]


def policy_names(names: str) -> list[str]:
    """The policies of ``random+medium``; a file's path may have a plus in it.

    >>> policy_names("random+medium"), policy_names("runs/a+b.safetensors")
    (['random', 'medium'], ['runs/a+b.safetensors'])
    """
    return [names] if names.endswith(".safetensors") else names.split("+")


def load_policy(name_or_path: str, task: str) -> BehaviourPolicy:
    """The policy called ``name_or_path`` (`available_policies`) or stored in that .safetensors file.

    Raises `ConfigError` for an unknown name or a policy of another task, `DataError` for an unreadable file.
    """
    if name_or_path == "random":
        return RandomPolicy(task, make_env(EnvConfig(task, observation="states")).action_dim)
    path = policy_path(name_or_path, task)
    policy = _read(path)
    if policy.task != task:
        raise ConfigError(
            f"policy {path} was trained on {policy.task}, not on {task}: set task={policy.task}"
        )
    return policy


def policy_path(name_or_path: str, task: str) -> Path:
    """The file behind a shipped name or a path; raises `ConfigError` where there is none."""
    if name_or_path.endswith(".safetensors"):
        path = Path(name_or_path)
        if not path.is_file():
            raise ConfigError(f"policy file {path} does not exist: give the path of a .safetensors policy")
        return path
    path = SHIPPED / task / f"{name_or_path}.safetensors"
    if not path.is_file():
        names = ", ".join(available_policies(task))
        raise ConfigError(
            f"no policy '{name_or_path}' for {task}: choose one of {names}, or give a .safetensors file"
        )
    return path


def read_card(name_or_path: str, task: str) -> dict[str, Any]:
    """The card of a policy: how it was trained and what it returns; only its name where it has none."""
    if name_or_path == "random":
        return {"task": task, "level": "random"}
    card = policy_path(name_or_path, task).with_suffix(".json")
    if not card.is_file():
        return {"task": task, "level": Path(name_or_path).stem}
    return json.loads(card.read_text())


def save_policy(path: Path, spec: PolicySpec, layers: list[tuple[Floats, Floats]]) -> None:
    """Write a policy file: one (weight (out, in), bias (out,)) per layer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for i, (weight, bias) in enumerate(layers):
        tensors[f"layers.{i}.weight"] = np.ascontiguousarray(weight, np.float32)
        tensors[f"layers.{i}.bias"] = np.ascontiguousarray(bias, np.float32)
    save_file(tensors, path, metadata={"policy": json.dumps(asdict(spec))})


def _read(path: Path) -> TanhGaussianPolicy:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            content = json.loads(file.metadata()["policy"])
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not a policy file of this project: {error!r}") from error
    if content.get("kind") != "tanh_gaussian" or set(content) != {field.name for field in fields(PolicySpec)}:
        raise DataError(
            f"{path} holds a policy this version cannot run, its header is {content}: update the package"
        )
    spec = PolicySpec(**content)
    shapes = list(zip(spec.layer_sizes[1:], spec.layer_sizes[:-1], strict=True))
    layers = []
    for i, shape in enumerate(shapes):
        weight, bias = tensors.get(f"layers.{i}.weight"), tensors.get(f"layers.{i}.bias")
        if weight is None or bias is None or weight.shape != shape or bias.shape != shape[:1]:
            raise DataError(
                f"{path}: layer {i} is missing or not of size {shape}: the file is damaged, get it again"
            )
        layers.append((weight, bias))
    return TanhGaussianPolicy(spec, layers)
