"""Synthetic states judged by the simulator itself: is this what the action leads to from there?"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.simulator import Simulator
from lightning_synther.errors import DataError
from lightning_synther.synthesis.subsample import thin
from lightning_synther.transition import TransitionSpec

NUM_STEPS = 500


def simulator_errors(
    rows: Tensor,
    spec: TransitionSpec,
    env: EnvConfig,
    scale: Tensor,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
) -> dict[str, float]:
    """Compare rows (N, D) of states, in data units, with one step of the simulator each.

    At most ``num_steps`` of the rows are taken, chosen by ``seed``. ``scale`` (D,) holds the data's standard
    deviations, the unit of the errors: ``simulator_dynamics_error`` and ``simulator_reward_error`` are root mean
    squared errors of next state and reward; ``simulator_state_error`` is how far the given state is from any that
    exists (a pair of sine and cosine, say, that no angle has); ``simulator_diverged`` is the share of steps that
    the simulator could not take, which count in no other error.

    Raises `ConfigError` for a task whose observation hides part of the state, `DataError` for rows of other sizes
    or where the simulator can take no step at all.
    """
    simulator = Simulator(env)
    if (spec.observation_dim, spec.action_dim) != (simulator.observation_dim, simulator.action_dim):
        raise DataError(
            f"{env.task} has states of {simulator.observation_dim} numbers and actions of {simulator.action_dim}, "
            f"the records have {spec.observation_dim} and {spec.action_dim}: give the task of these states "
            "(latents cannot be simulated)"
        )
    records = thin(rows, num_steps, seed).double()
    parts = {name: records[:, columns].numpy() for name, columns in spec.fields.items()}
    units = {name: scale[columns].double().numpy() for name, columns in spec.fields.items()}
    squares: dict[str, list[float]] = {"state": [], "dynamics": [], "reward": []}
    for state, action, reward, following in zip(*(parts[name] for name in list(parts)[:4]), strict=True):
        step = simulator.step(state, action)
        if step is not None:
            squares["state"].append(_square((step.state - state) / units["observation"]))
            squares["dynamics"].append(_square((step.next_state - following) / units["next_observation"]))
            squares["reward"].append(_square((step.reward - reward) / units["reward"]))
    if not squares["state"]:
        raise DataError(f"the simulator of {env.task} diverges on every one of {len(records)} records")
    scores = {f"simulator_{name}_error": float(np.mean(values) ** 0.5) for name, values in squares.items()}
    return scores | {"simulator_diverged": 1 - len(squares["state"]) / len(records)}


def _square(error: np.ndarray) -> float:
    return float(np.square(error).mean())
