"""The simulator goes on from an observation as the environment itself did."""

import numpy as np
import pytest

from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.envs.simulator import POSITIONS, Simulator
from lightning_synther.errors import ConfigError, DataError

TASKS = [
    "acrobot_swingup",
    "ball_in_cup_catch",
    "cartpole_swingup",
    "cartpole_three_poles",
    "cheetah_run",
    "hopper_hop",
    "pendulum_swingup",
    "point_mass_easy",
    "reacher_hard",
    "walker_walk",
]


def test_every_domain_is_tried():
    assert set(POSITIONS) == {
        domain for domain in POSITIONS if any(task.startswith(domain) for task in TASKS)
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_step_from_an_observation_is_the_environments(task):
    config = EnvConfig(task, "states", action_repeat=2)
    env, simulator = ControlEnv(config), Simulator(config)
    generator = np.random.default_rng(0)
    state = env.reset(1)
    for _ in range(20):
        action = generator.uniform(-1, 1, env.action_dim)
        result, step = env.step(action), simulator.step(state, action)
        np.testing.assert_allclose(step.next_state, result.observation, rtol=1e-3, atol=1e-3)
        assert step.reward == pytest.approx(result.reward, abs=1e-4)
        if task != "hopper_hop":  # its touch is a matter of forces, which come with an action
            np.testing.assert_allclose(step.state, state, atol=1e-5)
        state = result.observation


def test_a_state_that_does_not_exist_is_seen_as_the_nearest_that_does():
    simulator = Simulator(EnvConfig("pendulum_swingup", "states"))
    step = simulator.step(np.array([2.0, 0.0, 0.0]), np.zeros(1))  # cosine 2
    np.testing.assert_allclose(step.state, [1.0, 0.0, 0.0], atol=1e-6)


def test_a_step_that_diverges():
    simulator = Simulator(EnvConfig("cheetah_run", "states"))
    state = np.zeros(17)
    state[8:] = 1e12
    assert simulator.step(state, np.zeros(6)) is None
    assert simulator.step(np.zeros(17), np.zeros(6)) is not None  # and it can go on


def test_tasks_that_hide_part_of_their_state():
    with pytest.raises(ConfigError, match="finger_spin, which hides part of its state"):
        Simulator(EnvConfig("finger_spin", "states"))


def test_states_of_another_task():
    with pytest.raises(DataError, match=r"cheetah_run has states \(17,\) and actions \(6,\), got \(5,\)"):
        Simulator(EnvConfig("cheetah_run", "states")).step(np.zeros(5), np.zeros(6))
